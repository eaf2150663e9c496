//! The part of JSON Schema (draft-07) that the program's own schema uses. A keyword that is not implemented here is a
//! failure, so that none is ignored.

use regex::Regex;
use serde_json::Value;

/// The reasons why the value does not match the schema; empty if it does.
pub fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let words = schema.as_object().expect("a schema is an object");
    let fits = |schema: &Value| problems(schema, value).is_empty();
    for (word, said) in words {
        let is_kept = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "properties" | "patternProperties" | "items" => {
                inner(schema, word, value, at, found);
                true
            }
            "type" => match said.as_str().expect("a type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("the type {other}"),
            },
            "const" => value == said,
            "enum" => said.as_array().expect("a list").contains(value),
            "minimum" => value
                .as_i64()
                .is_none_or(|value| i128::from(value) >= i128::from(said.as_u64().unwrap())),
            "maximum" => value
                .as_i64()
                .is_none_or(|value| i128::from(value) <= i128::from(said.as_u64().unwrap())),
            "pattern" => value
                .as_str()
                .is_none_or(|text| Regex::new(said.as_str().unwrap()).unwrap().is_match(text)),
            "minItems" => value
                .as_array()
                .is_none_or(|list| list.len() as u64 >= said.as_u64().unwrap()),
            "minProperties" => value
                .as_object()
                .is_none_or(|table| table.len() as u64 >= said.as_u64().unwrap()),
            "required" => {
                let required = said
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|key| key.as_str().unwrap());
                value
                    .as_object()
                    .is_none_or(|table| required.clone().all(|key| table.contains_key(key)))
            }
            "anyOf" => said.as_array().expect("a list").iter().any(fits),
            "oneOf" => {
                said.as_array()
                    .expect("a list")
                    .iter()
                    .filter(|one| fits(one))
                    .count()
                    == 1
            }
            "additionalProperties" => {
                assert_eq!(said, &Value::Bool(false));
                value
                    .as_object()
                    .is_none_or(|table| table.keys().all(|key| is_known(schema, key)))
            }
            other => panic!("the word {other}"),
        };
        if !is_kept {
            found.push(format!("{at}: {word} {said}"));
        }
    }
}

fn inner(schema: &Value, word: &str, value: &Value, at: &str, found: &mut Vec<String>) {
    match (word, value) {
        ("items", Value::Array(list)) => {
            for (index, element) in list.iter().enumerate() {
                check(&schema["items"], element, &format!("{at}[{index}]"), found);
            }
        }
        ("properties", Value::Object(table)) => {
            for (key, value) in table {
                if let Some(schema) = schema["properties"].get(key) {
                    check(schema, value, &format!("{at}.{key}"), found);
                }
            }
        }
        ("patternProperties", Value::Object(table)) => {
            for (pattern, schema) in schema["patternProperties"].as_object().expect("a table") {
                let pattern = Regex::new(pattern).expect("a pattern");
                for (key, value) in table.iter().filter(|(key, _)| pattern.is_match(key)) {
                    check(schema, value, &format!("{at}.{key}"), found);
                }
            }
        }
        _ => {}
    }
}

fn is_known(schema: &Value, key: &str) -> bool {
    let patterns = schema["patternProperties"]
        .as_object()
        .into_iter()
        .flatten();
    schema["properties"].get(key).is_some()
        || patterns
            .into_iter()
            .any(|(pattern, _)| Regex::new(pattern).expect("a pattern").is_match(key))
}
