//! Type names: a name that two rooms define must be on a list, with a reason.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::without_tests;
use super::{assert_none, code_of, sources};

/// Type names that several rooms define, and why.
const SHARED: &[(&str, &str)] = &[];

/// The names of the types that code defines: structs, enums, unions, traits and aliases at any depth.
fn defined(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in code.lines().map(str::trim_start) {
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => {
                rest.split_once(')').map_or(rest, |(_, rest)| rest)
            }
            Some(rest) => rest,
            None => line,
        };
        let line = line.trim_start();
        let words = ["struct ", "enum ", "union ", "trait ", "type "];
        let Some(rest) = words.iter().find_map(|word| line.strip_prefix(word)) else {
            continue;
        };
        let name: String = rest
            .chars()
            .take_while(|character| character.is_alphanumeric() || *character == '_')
            .collect();
        // An associated type belongs to its trait.
        let is_associated =
            line.starts_with("type ") && rest[name.len()..].trim_start().starts_with([':', ';']);
        if !name.is_empty() && !is_associated {
            names.insert(name);
        }
    }
    names
}

/// A type name has one meaning in the crate, unless it is listed.
#[test]
fn type_names_are_unique() {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for name in defined(&associated_removed(&without_tests(&code_of(&source.text)))) {
            rooms.entry(name).or_default().insert(source.room.clone());
        }
    }
    let is_listed = |name: &str| SHARED.iter().any(|(listed, _)| *listed == name);
    let mut problems: Vec<String> = rooms
        .iter()
        .filter(|(name, rooms)| rooms.len() > 1 && !is_listed(name))
        .map(|(name, rooms)| format!("{name}: in {rooms:?}"))
        .collect();
    for (name, why) in SHARED {
        if rooms.get(*name).is_none_or(|rooms| rooms.len() < 2) {
            problems.push(format!(
                "{name}: one room defines it; remove it from the list"
            ));
        }
        if why.is_empty() {
            problems.push(format!("{name}: is listed without a reason"));
        }
    }
    assert_none(
        &problems,
        "a type name that two rooms define is listed with a reason:",
    );
}

/// Code without the associated types of implementations, which are indented aliases.
fn associated_removed(code: &str) -> String {
    let is_kept = |line: &&str| !(line.starts_with(' ') && line.trim_start().starts_with("type "));
    code.lines()
        .filter(is_kept)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The parser of type names finds every kind of definition, and no associated type.
#[test]
fn definitions_are_seen() {
    let code = "pub struct A<T>(T);\nenum B {\npub(crate) trait C: D {\n    type Item = u8;\npub(in crate::x) type E = u8;\n    struct Inner;\nlet structure = 1;";
    let names: Vec<String> = defined(&associated_removed(code)).into_iter().collect();
    assert_eq!(names, ["A", "B", "C", "E", "Inner"]);
}
