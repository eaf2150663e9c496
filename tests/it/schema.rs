//! The JSON schema for editors is the file in the repository, and accepts what the daemon accepts. The definitions of
//! settings agree with the parsers, the example and the documents.

use std::path::Path;
use std::process::Command;

use crate::common::json_schema;
use regex::Regex;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};
use udispatch::config::kind::{AnySetting, DefaultText, Form};
use udispatch::config::schema::{schema, tables};
use udispatch::config::{Config, Problems, value};
use udispatch::handlers::KINDS;

/// The contents of a file, as an editor passes them to its schema.
fn to_json(text: &str) -> Value {
    let table = DeTable::parse(text).expect("TOML");
    json_of_table(table.get_ref())
}

fn json_of_table(table: &DeTable<'_>) -> Value {
    let entries = table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), json_of(value.get_ref())));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn json_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(integer) => {
            json!(i64::from_str_radix(integer.as_str(), integer.radix()).expect("a number of TOML"))
        }
        DeValue::Float(float) => json!(float.as_str().parse::<f64>().expect("a number")),
        DeValue::Boolean(value) => json!(value),
        DeValue::Datetime(time) => json!({ "datetime": time.to_string() }),
        DeValue::Array(list) => list.iter().map(|value| json_of(value.get_ref())).collect(),
        DeValue::Table(table) => json_of_table(table),
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(Path::new("u.toml"), text, KINDS)
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The file that editors are pointed to is what the program prints.
#[test]
fn the_schema_is_checked_in() {
    let output = Command::new(env!("CARGO_BIN_EXE_udispatch"))
        .arg("schema")
        .output()
        .expect("the program runs");
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(
        serde_json::from_str::<Value>(&printed).expect("JSON"),
        schema(KINDS)
    );
    assert!(
        printed == read("docs/udispatch.schema.json"),
        "docs/udispatch.schema.json is old; `udispatch schema` prints the new one"
    );
}

/// The example configuration and the examples of every kind are valid, and the example configuration names the schema.
#[test]
fn it_takes_the_examples() {
    let schema = schema(KINDS);
    let example = read("config.example.toml");
    assert_eq!(
        example.lines().next(),
        Some("#:schema ./docs/udispatch.schema.json")
    );
    for text in KINDS
        .iter()
        .map(|kind| kind.example)
        .chain([example.as_str()])
    {
        assert_eq!(
            json_schema::problems(&schema, &to_json(text)),
            [""; 0],
            "{text}"
        );
    }
}

/// Files in which an editor should mark an error.
#[test]
fn it_refuses_what_is_wrong() {
    let schema = schema(KINDS);
    let route = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n";
    let refused = |text: &str| !json_schema::problems(&schema, &to_json(text)).is_empty();
    assert!(!refused(route));
    for more in [
        "interfce = \"eth0\"\n",
        "share = \"yes\"\n",
        "source = []\n",
        "[demon]\n",
        "[daemon]\nworkers = 0\n",
        "[daemon]\nreceive_buffer = \"8MB\"\n",
        "[daemon]\ncontrol = true\n",
        "[daemon]\nhttp_hosts = []\n",
        "expect_every = 60\n",
        "expect_every = {}\n",
        "expect_every = { \"10.0.0.0/8\" = 60 }\n",
        "[[test]]\nsource = \"10.0.0.1\"\ndestination = \"10.0.0.2:1\"\n",
        "[[test]]\nsource = \"10.0.0.1\"\ndestination = \"10.0.0.2:1\"\nexpect = \"none\"\n",
        "[[test]]\nsource = \"10.0.0.1\"\ndestination = \"10.0.0.2:1\"\nexpect = { rout = \"a\" }\n",
        "[handler.a]\n",
        "[handler.a]\nkind = \"ecko\"\n",
        "[handler.\"a b\"]\nkind = \"echo\"\n",
        "[handler.a]\nkind = \"echo\"\nttl = 256\n",
        "[handler.a]\nkind = \"forward\"\n",
        "[handler.a]\nkind = \"forward\"\nupstreams = [{ weight = 1 }]\n",
        "[handler.a]\nkind = \"forward\"\nupstreams = [{ address = \"a:1\", max_rate = \"5\" }]\n",
        "[handler.a]\nkind = \"forward\"\nupstreams = \"a:1\"\npick = \"round-robin\"\n",
        "[handler.a]\nkind = \"forward\"\nupstreams = \"a:1\"\nsession_idle = 60\n",
        "[handler.a]\nkind = \"forward\"\nupstreams = \"a:1\"\nhealth = { probe = \"icmp\" }\n",
    ] {
        assert!(refused(&format!("{route}{more}")), "{more}");
    }
    assert!(refused("[daemon]\n"));
}

/// Values that a definition says to be accepted, in the notation of the file. Text and tables are described in words, so
/// there are none of these.
fn accepted(form: &Form) -> Vec<String> {
    let quoted = |text: &str| format!("\"{text}\"");
    match form {
        Form::Text(_) | Form::Table(_) | Form::Map { .. } => Vec::new(),
        Form::Boolean => vec!["true".to_owned(), "false".to_owned()],
        Form::False => vec!["false".to_owned()],
        Form::Integer { min, max } => vec![min.to_string(), max.to_string()],
        Form::Duration { min, max } => [min, max]
            .map(|duration| quoted(&value::show_duration(*duration)))
            .to_vec(),
        Form::DurationOrZero { min, max } => [
            "0s",
            &value::show_duration(*min),
            &value::show_duration(*max),
        ]
        .map(quoted)
        .to_vec(),
        Form::Size { min, max } => vec![quoted(&value::show_size(*min)), max.to_string()],
        Form::Rate => vec![quoted("1/s"), quoted("7/h")],
        Form::Choice(list) => list.words().into_iter().map(quoted).collect(),
        Form::OneOf(forms) => forms.iter().flat_map(accepted).collect(),
    }
}

/// Every setting, those of inner tables included, with the name of its table and of its own.
fn all_settings() -> Vec<(String, &'static dyn AnySetting)> {
    let kinds = KINDS.iter().map(|kind| (kind.name, kind.settings));
    let mut all = Vec::new();
    for (name, settings) in tables().into_iter().chain(kinds) {
        for setting in settings {
            let path = format!("{name}.{}", setting.key());
            let inner = setting.inner().iter();
            let inner = inner.map(|inner| (format!("{path}.{}", inner.key()), *inner));
            all.extend(inner);
            all.push((path, *setting));
        }
    }
    all
}

/// What a definition says to be accepted, its default included, its parser accepts.
#[test]
fn definitions_agree_with_the_parsers() {
    let mut tried = 0;
    for (path, setting) in all_settings() {
        let mut values = accepted(setting.form());
        if let DefaultText::Value(text) = setting.default_text() {
            values.push(text);
        }
        for value in values {
            assert_eq!(setting.accepts(&value), Ok(()), "{path} = {value}");
            tried += 1;
        }
        assert!(!setting.meaning().is_empty(), "{path}");
    }
    assert!(tried > 120, "{tried}");
}

/// The example shows every key, and a key that is commented out has its default there.
#[test]
fn the_example_shows_every_key() {
    let example = read("config.example.toml");
    for (path, setting) in all_settings() {
        let key = setting.key();
        let word = Regex::new(&format!(r"(^|[^\w]){key}([^\w]|$)")).expect("a pattern");
        assert!(example.lines().any(|line| word.is_match(line)), "{path}");
    }
    for (table, header) in [("daemon", "[daemon]"), ("forward", "[handler.resolvers]")] {
        let (_, rest) = example.split_once(header).expect(header);
        let section = rest.split("\n\n").next().expect("a section");
        for (path, setting) in all_settings() {
            let Some(key) = path.strip_prefix(&format!("{table}.")) else {
                continue;
            };
            let line = format!("# {key} = ");
            let shown = section.lines().find_map(|text| text.strip_prefix(&line));
            if let (Some(shown), DefaultText::Value(default)) = (shown, setting.default_text()) {
                assert!(
                    shown.starts_with(&default),
                    "{path}: {shown}, and not {default}"
                );
            }
        }
    }
}

/// The tables of settings in the documents have every key, with its default.
#[test]
fn the_documents_have_the_defaults() {
    let tables = [
        (
            "docs/configuration.md",
            "| key | default | meaning |\n",
            "daemon.",
        ),
        (
            "docs/forward.md",
            "| setting | default | meaning |\n",
            "forward.",
        ),
        (
            "docs/forward.md",
            "| key | default | meaning |\n",
            "forward.upstreams.",
        ),
        (
            "docs/forward.md",
            "a table with `fail_open` only",
            "forward.health.",
        ),
    ];
    for (document, start, prefix) in tables {
        let text = read(document);
        let start = text
            .find(start)
            .unwrap_or_else(|| panic!("{document}: {start}"));
        let rows = text[..start].rfind("\n\n").unwrap_or(0);
        let rows = text[rows..].trim_start().lines();
        let rows = rows.take_while(|row| row.starts_with('|')).skip(2);
        let mut documented = Vec::new();
        for row in rows {
            let cells: Vec<&str> = row.split(" | ").collect();
            let keys = cells[0].replace(['|', '`', ' '], "");
            let default = cells[1].replace('`', "");
            documented.extend(keys.split(',').map(|key| (key.to_owned(), default.clone())));
        }
        for (path, setting) in all_settings() {
            let Some(key) = path.strip_prefix(prefix).filter(|key| !key.contains('.')) else {
                continue;
            };
            let found = documented.iter().find(|(documented, _)| documented == key);
            let (_, found) = found.unwrap_or_else(|| panic!("{document}: no row for {path}"));
            let default = match setting.default_text() {
                DefaultText::Required => "required".to_owned(),
                DefaultText::Value(text) | DefaultText::Words(text) => text,
            };
            assert!(
                *found == default || found == "see below",
                "{path}: {found}, and not {default}"
            );
        }
    }
}

/// An editor accepts everything that the daemon accepts.
#[test]
fn it_takes_what_the_daemon_takes() {
    let schema = schema(KINDS);
    let route = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n";
    let test = "[[test]]\nsource = \"10.0.0.1\"\ndestination = \"127.0.0.1:1\"\n";
    for more in [
        "expect_every = \"60s\"\n",
        "expect_every = { \"10.0.0.0/8\" = \"60s\", \"192.0.2.7\" = \"5s\" }\n",
        "[daemon]\ncontrol = false\nwatch = true\nlatency = true\n",
        "[daemon]\ncontrol = \"/run/u.sock\"\nhttp = \"9253\"\nhttp_hosts = [\"a.example\"]\n",
        &format!("{test}payload = \"x\"\ninterface = \"lo\"\nexpect = \"no_route\"\n"),
        &format!("{test}expect = {{ route = \"127.0.0.1:1\", handler = [\"echo\"] }}\n"),
    ] {
        let text = format!("{route}{more}");
        parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(
            json_schema::problems(&schema, &to_json(&text)),
            [""; 0],
            "{text}"
        );
    }
    for settings in [
        "upstreams = \"a:1\"",
        "upstreams = { address = \"a:1\", dscp = \"ef\", source = \"10.0.0.1:5\" }\nreplies = false",
        "upstreams = [\"a:1\", { address = \"b:1\", dscp = 3, weight = 9, sample = \"1/3\", max_rate = \"5/m\" }]",
        "upstreams = [\"a:1\", { address = \"b:1\", shadow = true, proxy = \"v2\", interface = \"eth0\" }]",
        "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = { offset = 4 }",
        "upstreams = \"a:1\"\npick = \"all\"\nreplies = \"all\"\nsession_idle = \"1500ms\"",
        "upstreams = \"a:1\"\nresolve_interval = \"0s\"\nhealth = { fail_open = false }",
        "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send_hex = \"00\", interval = \"1m\" }",
    ] {
        let head = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\nkind = \"forward\"\n";
        let text = format!("{head}{settings}\n");
        parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(
            json_schema::problems(&schema, &to_json(&text)),
            [""; 0],
            "{text}"
        );
    }
}
