//! The JSON schema (draft-07) of the configuration file. It is made from the same definitions that the parser and the
//! help use. With it, editors complete and check a file while it is written. Conditions that only the daemon can
//! check remain with `check`.

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::definition::{AnySetting, DefaultText, Form, SettingTable};
use super::kind::Kind;
use super::limits::NAME_BYTES_MAX;
use super::{daemon, route, test};

/// Returns the tables whose keys do not depend on the kinds of handlers, each with its name and its settings.
pub fn tables() -> [(&'static str, SettingTable); 3] {
    [
        ("daemon", daemon::SETTINGS),
        ("route", route::SETTINGS),
        ("test", test::SETTINGS),
    ]
}

/// Returns the schema of files that may use these kinds of handlers.
pub fn schema(kinds: &[Kind]) -> Value {
    let name = format!("^[A-Za-z0-9_-]{{1,{NAME_BYTES_MAX}}}$");
    let [daemon, route, test] = tables().map(|(_, settings)| table(settings));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "udispatch",
        "type": "object",
        "required": ["route"],
        "additionalProperties": false,
        "properties": {
            "daemon": described(daemon, "settings of the whole process"),
            "route": {
                "description": "destinations whose datagrams go to the same handlers",
                "type": "array",
                "minItems": 1,
                "items": route,
            },
            "test": {
                "description": "test datagrams and what must become of them; `check` and every reload run the tests",
                "type": "array",
                "items": test,
            },
            "handler": {
                "description": "handlers, by name",
                "type": "object",
                "additionalProperties": false,
                "patternProperties": { name: { "oneOf": kinds.iter().map(handler).collect::<Vec<_>>() } },
            },
        },
    })
}

/// Returns the schema of a handler table of this kind.
fn handler(kind: &Kind) -> Value {
    let mut schema = described(table(kind.settings), kind.summary);
    schema["title"] = json!(kind.name);
    schema["properties"]["kind"] = json!({ "description": kind.summary, "const": kind.name });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, json!("kind"));
    }
    schema
}

fn table(settings: SettingTable) -> Value {
    let required = settings.iter().filter(|setting| setting.is_required());
    let required: Vec<&str> = required.map(|setting| setting.key()).collect();
    let properties = settings
        .iter()
        .map(|setting| (setting.key().to_owned(), property(*setting)));
    let properties: Map<String, Value> = properties.collect();
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn property(setting: &dyn AnySetting) -> Value {
    let element = form(setting.form());
    let schema = if setting.is_list() {
        let list = json!({ "type": "array", "minItems": 1, "items": element });
        any_of(vec![element, list])
    } else {
        element
    };
    let mut schema = described(schema, &description(setting));
    if let DefaultText::Value(text) = setting.default_text()
        && let Some(default) = literal(&text)
    {
        schema["default"] = default;
    }
    schema
}

/// Returns the meaning of a key, with the bounds that a schema cannot express because their values are text.
fn description(setting: &dyn AnySetting) -> String {
    match setting.form() {
        Form::Duration { .. } | Form::DurationOrZero { .. } | Form::Size { .. } => {
            format!("{} ({})", setting.meaning(), setting.values())
        }
        _ => setting.meaning().to_owned(),
    }
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

fn form(form: &Form) -> Value {
    match form {
        Form::Text(_) => json!({ "type": "string" }),
        Form::Boolean => json!({ "type": "boolean" }),
        Form::False => json!({ "const": false }),
        Form::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Duration { .. } | Form::DurationOrZero { .. } => {
            json!({ "type": "string", "pattern": "^[0-9]+(us|ms|s|m|h|d)$" })
        }
        Form::Size { min, max } => any_of(vec![
            json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }),
            json!({ "type": "integer", "minimum": min, "maximum": max }),
        ]),
        Form::Rate => json!({ "type": "string", "pattern": "^[0-9]+/[smh]$" }),
        Form::Choice(list) => json!({ "enum": list.words() }),
        Form::Table(settings) => table(settings),
        Form::Map { value, .. } => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "patternProperties": { "": self::form(value) },
        }),
        Form::OneOf(forms) => any_of(forms.iter().map(self::form).collect()),
    }
}

fn any_of(schemas: Vec<Value>) -> Value {
    json!({ "anyOf": schemas })
}

/// Returns a default, which is written in the notation of the file, as JSON; `None` if it is of a type that no
/// setting has.
fn literal(text: &str) -> Option<Value> {
    let document = format!("key = {text}");
    let table = DeTable::parse(&document).ok()?;
    match table.get_ref().get("key")?.get_ref() {
        DeValue::String(text) => Some(json!(text)),
        DeValue::Boolean(value) => Some(json!(value)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .map(|n| json!(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A default in the notation of the file is a default for editors too.
    #[test]
    fn defaults() {
        assert_eq!(literal("\"8MiB\""), Some(json!("8MiB")));
        assert_eq!(literal("65536"), Some(json!(65_536)));
        assert_eq!(literal("true"), Some(json!(true)));
        assert_eq!(literal("1979-05-27"), None);
    }
}
