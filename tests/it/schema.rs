//! The JSON schema for editors is the file in the repository, accepts what the daemon accepts, and its definitions
//! agree with the parsers.

use std::path::Path;
use std::process::Command;

use crate::common::json_schema;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};
use udispatch::config::kind::{Form, Setting};
use udispatch::config::{Config, Problems, schema};
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

/// Values for each definition, as a file writes them: those that match, and those that do not.
fn samples(form: &Form) -> (Vec<String>, Vec<String>) {
    let quoted = |text: &str| format!("\"{text}\"");
    match form {
        Form::Text(_) => (vec![], vec!["1".to_owned()]),
        Form::Boolean => (
            vec!["true".to_owned(), "false".to_owned()],
            vec!["1".to_owned()],
        ),
        Form::False => (
            vec!["false".to_owned()],
            vec!["true".to_owned(), "1".to_owned()],
        ),
        Form::Map { .. } => (vec![], vec!["{}".to_owned()]),
        Form::Integer { min, max } => {
            let above = u128::from(*max) + 1;
            let below = i128::from(*min) - 1;
            (
                vec![min.to_string(), max.to_string()],
                vec![below.to_string(), above.to_string()],
            )
        }
        Form::Duration { min, max } | Form::Size { min, max } => (
            vec![quoted(min), quoted(max)],
            vec!["\"5x\"".to_owned(), "true".to_owned()],
        ),
        Form::Rate => (
            vec!["\"1/s\"".to_owned(), "\"7/h\"".to_owned()],
            vec!["7".to_owned(), "\"7/d\"".to_owned()],
        ),
        Form::Choice(words) => (
            words.iter().map(|word| quoted(word)).collect(),
            vec!["\"no such word\"".to_owned()],
        ),
        Form::Table(_) => (vec![], vec!["{ no_such_key = 1 }".to_owned()]),
        Form::List(element) => {
            let (good, bad) = samples(element);
            (good, bad.into_iter().chain(["[]".to_owned()]).collect())
        }
        Form::OneOf(forms) => {
            let (good, bad): (Vec<_>, Vec<_>) = forms.iter().map(samples).unzip();
            let bad = bad
                .concat()
                .into_iter()
                .filter(|value| !forms.iter().any(|form| takes(form, value)));
            (good.concat(), bad.collect())
        }
    }
}

/// Whether a value has the type of a form, whether it is right or wrong otherwise.
fn takes(form: &Form, value: &str) -> bool {
    match form {
        Form::Text(_) => value.starts_with('"'),
        Form::Boolean => matches!(value, "true" | "false"),
        Form::False => value == "false",
        Form::Integer { min, max } => value
            .parse()
            .is_ok_and(|number: u128| (*min as u128..=*max as u128).contains(&number)),
        _ => false,
    }
}

/// A file that has this one setting of the kind, and the others that it needs.
fn file(kind: &str, path: &[&Setting], value: &str) -> String {
    let line = match path {
        [setting] => format!("{} = {value}\n", setting.key),
        [outer, inner] => {
            let address = if outer.key == "upstreams" && inner.key != "address" {
                "address = \"a:1\", "
            } else {
                ""
            };
            let probe = if outer.key == "health" && inner.key != "probe" {
                "probe = \"tcp\", "
            } else {
                ""
            };
            format!(
                "{} = {{ {address}{probe}{} = {value} }}\n",
                outer.key, inner.key
            )
        }
        _ => panic!("tables are not nested deeper"),
    };
    let upstreams = if kind == "forward" && path[0].key != "upstreams" {
        "upstreams = \"a:1\"\n"
    } else {
        ""
    };
    format!(
        "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\nkind = \"{kind}\"\n{upstreams}{line}"
    )
}

/// The definitions of every kind describe what its parser accepts and refuses, at both ends of each range.
#[test]
fn definitions_agree_with_the_parsers() {
    let mut tried = 0;
    for kind in KINDS {
        let inner = kind
            .settings
            .iter()
            .flat_map(|outer| outer.inner().iter().map(move |inner| vec![outer, inner]));
        for path in kind
            .settings
            .iter()
            .map(|setting| vec![setting])
            .chain(inner)
        {
            let setting = path[path.len() - 1];
            let (good, bad) = samples(&setting.form);
            // A value may be wrong in combination with others, but the error may not say that it is no such value at
            // all.
            let says = |value: &str| {
                let problems = parse(&file(kind.name, &path, value)).err();
                problems
                    .map(|problems| problems.to_string())
                    .unwrap_or_default()
            };
            for value in good {
                let told = says(&value);
                let is_refused = ["expected", "must be", "is not a", "has no key", "beyond"]
                    .iter()
                    .any(|word| {
                        told.lines()
                            .any(|line| line.starts_with("error: ") && line.contains(word))
                    });
                assert!(
                    !is_refused,
                    "{}: {} = {value}\n{told}",
                    kind.name, setting.key
                );
                tried += 1;
            }
            for value in bad {
                assert!(
                    !says(&value).is_empty(),
                    "{}: {} = {value} is accepted",
                    kind.name,
                    setting.key
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
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
