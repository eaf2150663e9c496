//! Type names: one that two rooms define must be on a list, with a reason.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::without_tests;
use super::{assert_none, code_of, sources};

/// The reason for a name that is to be changed.
const NOT_UNIQUE_YET: &str = "it is to get a name of its own";

/// Type names that several rooms define, and why.
const SHARED: &[(&str, &str)] = &[
    ("After", NOT_UNIQUE_YET),
    ("Answer", NOT_UNIQUE_YET),
    ("Bound", NOT_UNIQUE_YET),
    ("Command", NOT_UNIQUE_YET),
    ("Control", NOT_UNIQUE_YET),
    ("Counts", NOT_UNIQUE_YET),
    ("Door", NOT_UNIQUE_YET),
    ("Draft", NOT_UNIQUE_YET),
    ("Entry", NOT_UNIQUE_YET),
    ("Exit", NOT_UNIQUE_YET),
    ("Expected", NOT_UNIQUE_YET),
    ("Failure", NOT_UNIQUE_YET),
    ("FinalCounts", NOT_UNIQUE_YET),
    ("Fate", NOT_UNIQUE_YET),
    ("Health", NOT_UNIQUE_YET),
    ("Heard", NOT_UNIQUE_YET),
    ("Held", NOT_UNIQUE_YET),
    ("History", NOT_UNIQUE_YET),
    ("Host", NOT_UNIQUE_YET),
    ("Item", NOT_UNIQUE_YET),
    ("Job", NOT_UNIQUE_YET),
    ("Key", NOT_UNIQUE_YET),
    ("Kind", NOT_UNIQUE_YET),
    ("Sockets", NOT_UNIQUE_YET),
    ("Letter", NOT_UNIQUE_YET),
    ("Line", NOT_UNIQUE_YET),
    ("Listener", NOT_UNIQUE_YET),
    ("Listeners", NOT_UNIQUE_YET),
    ("LookUp", NOT_UNIQUE_YET),
    ("Mark", NOT_UNIQUE_YET),
    ("Names", NOT_UNIQUE_YET),
    ("Next", NOT_UNIQUE_YET),
    ("Outcome", NOT_UNIQUE_YET),
    ("Parcel", NOT_UNIQUE_YET),
    ("Ports", NOT_UNIQUE_YET),
    ("Queue", NOT_UNIQUE_YET),
    ("Ready", NOT_UNIQUE_YET),
    ("Receiver", NOT_UNIQUE_YET),
    ("Refused", NOT_UNIQUE_YET),
    ("Reply", NOT_UNIQUE_YET),
    ("Row", NOT_UNIQUE_YET),
    ("Sample", NOT_UNIQUE_YET),
    ("Sight", NOT_UNIQUE_YET),
    ("Slot", NOT_UNIQUE_YET),
    ("Socket", NOT_UNIQUE_YET),
    ("Source", NOT_UNIQUE_YET),
    ("Stage", NOT_UNIQUE_YET),
    ("Started", NOT_UNIQUE_YET),
    ("State", NOT_UNIQUE_YET),
    ("Taken", NOT_UNIQUE_YET),
    ("Talk", NOT_UNIQUE_YET),
    ("Target", NOT_UNIQUE_YET),
    ("Told", NOT_UNIQUE_YET),
    ("Monitor", NOT_UNIQUE_YET),
    ("Watch", NOT_UNIQUE_YET),
    ("Way", NOT_UNIQUE_YET),
];

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
        // An associated type is its trait's.
        let is_associated =
            line.starts_with("type ") && rest[name.len()..].trim_start().starts_with([':', ';']);
        if !name.is_empty() && !is_associated {
            names.insert(name);
        }
    }
    names
}

/// A type name means one thing in the crate, unless it is listed.
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

/// The finder of type names sees every kind of definition, and no associated type.
#[test]
fn definitions_are_seen() {
    let code = "pub struct A<T>(T);\nenum B {\npub(crate) trait C: D {\n    type Item = u8;\npub(in crate::x) type E = u8;\n    struct Inner;\nlet structure = 1;";
    let names: Vec<String> = defined(&associated_removed(code)).into_iter().collect();
    assert_eq!(names, ["A", "B", "C", "E", "Inner"]);
}
