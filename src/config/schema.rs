//! The JSON schema (draft-07) of the configuration file. It is made from the same definitions that the parser and the
//! help use. With it, editors complete and check a file while it is written. Conditions that only the daemon can
//! check remain with `check`.

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::kind::Kind;
use super::limits::NAME_BYTES_MAX;
use super::setting::{Form, Setting};
use super::{daemon, route, test};

/// Returns the schema of files that may use these kinds of handlers.
pub fn schema(kinds: &[Kind]) -> Value {
    let name = format!("^[A-Za-z0-9_-]{{1,{NAME_BYTES_MAX}}}$");
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "udispatch",
        "type": "object",
        "required": ["route"],
        "additionalProperties": false,
        "properties": {
            "daemon": described(table(&daemon::SETTINGS), "what holds for the whole process"),
            "route": {
                "description": "destinations that are handled alike",
                "type": "array",
                "minItems": 1,
                "items": table(&route::SETTINGS),
            },
            "test": {
                "description": "datagrams, and what must become of them; run by `check` and before every reload",
                "type": "array",
                "items": table(&test::SETTINGS),
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

fn table(settings: &[Setting]) -> Value {
    let required: Vec<&str> = settings
        .iter()
        .filter(|setting| setting.is_required())
        .map(|one| one.key)
        .collect();
    let properties: Map<String, Value> = settings
        .iter()
        .map(|setting| (setting.key.to_owned(), property(setting)))
        .collect();
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn property(setting: &Setting) -> Value {
    let mut schema = described(form(&setting.form), setting.meaning);
    if let Some(default) = literal(setting.default) {
        schema["default"] = default;
    }
    schema
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
        Form::Duration { .. } => json!({ "type": "string", "pattern": "^[0-9]+(us|ms|s|m|h|d)$" }),
        Form::Size { .. } => any_of(vec![
            json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }),
            json!({ "type": "integer", "minimum": 0 }),
        ]),
        Form::Rate => json!({ "type": "string", "pattern": "^[0-9]+/[smh]$" }),
        Form::Choice(words) => json!({ "enum": words }),
        Form::Table(settings) => table(settings),
        Form::Map { value, .. } => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "patternProperties": { "": self::form(value) },
        }),
        Form::List(element) => {
            let element = self::form(element);
            any_of(vec![
                element.clone(),
                json!({ "type": "array", "minItems": 1, "items": element }),
            ])
        }
        Form::OneOf(forms) => any_of(forms.iter().map(self::form).collect()),
    }
}

fn any_of(schemas: Vec<Value>) -> Value {
    json!({ "anyOf": schemas })
}

/// Returns a default as JSON if it is written in the notation of the file; `None` if it is a description in words.
fn literal(text: &str) -> Option<Value> {
    let document = format!("key = {text}");
    let table = DeTable::parse(&document).ok()?;
    if table.get_ref().len() > 1 {
        return None;
    }
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

    /// A default in the notation of the file is a default for editors too; a sentence is not.
    #[test]
    fn defaults() {
        assert_eq!(literal("\"8MiB\""), Some(json!("8MiB")));
        assert_eq!(literal("65536"), Some(json!(65_536)));
        assert_eq!(literal("true"), Some(json!(true)));
        for words in [
            "received less one",
            "required",
            "",
            "1979-05-27",
            "3\nb = 4",
        ] {
            assert_eq!(literal(words), None, "{words}");
        }
    }
}
