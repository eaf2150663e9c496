//! Tests of `config/section.rs`.

use super::super::source::SourceFile;
use super::super::value;
use super::*;

/// Reads `text` as one table. Returns what was read, and the problems that were reported.
fn read<T>(
    text: &str,
    keys: &[&str],
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> (T, Vec<String>) {
    let mut problems = Problems::new(SourceFile::new(Path::new("dir/u.toml"), text));
    let table = DeTable::parse(text).expect("the test's TOML is well formed");
    let keys = keys.iter().copied();
    let mut section = Section::new("[t]", table.get_ref(), 0..0, keys, &mut problems);
    let result = read(&mut section);
    section.finish();
    (
        result,
        problems
            .iter()
            .map(|problem| problem.message.clone())
            .collect(),
    )
}

/// A single value counts as a list of one element. A bad element is reported and does not hide the others.
#[test]
fn lists() {
    let bytes = |section: &mut Section<'_>| section.required_list("a", value::integer(0..=9));
    assert_eq!(read("a = 1", &["a"], bytes), (Some(vec![1]), vec![]));
    assert_eq!(
        read("a = [1, 2]", &["a"], bytes),
        (Some(vec![1, 2]), vec![])
    );
    let (list, told) = read("a = [1, 10, true]", &["a"], bytes);
    assert_eq!((list, told.len()), (None, 2));
    assert_eq!(read("", &["a"], bytes).1, ["[t] has no `a`"]);
}

/// A misspelt key is reported once, with the key that was meant.
#[test]
fn a_misspelt_required_key_is_one_problem() {
    let keys = &["upstreams", "pick"];
    let (_, told) = read("upstraems = 1", keys, |section| {
        section.required("upstreams", value::string)
    });
    assert_eq!(told, ["[t] has no key \"upstraems\""]);
}

/// Of keys that exclude each other, two are reported.
#[test]
fn one_of_several() {
    let one = |section: &mut Section<'_>| section.exactly_one(&["a", "b"]);
    assert_eq!(read("b = 1", &["a", "b"], one), (Some("b"), vec![]));
    assert_eq!(read("", &["a", "b"], one).1, ["[t] needs one of a or b"]);
    assert_eq!(
        read("b = 1\na = 1", &["a", "b"], one).1,
        ["`b` and `a` exclude each other"]
    );
}

/// A list may hold words and tables. An inner table has keys and problems of its own.
#[test]
fn tables_in_lists() {
    use super::super::setting::Form;
    let number = Form::Integer { min: 1, max: 9 };
    let settings = [Setting {
        key: "port",
        form: number,
        default: "required",
        meaning: "a port",
    }];
    let ports = |section: &mut Section<'_>| {
        let values = section.values("to")?;
        let port = |section: &mut Section<'_>| section.required("port", value::integer(1..=9));
        let tables = values.into_iter().filter(|value| value.is_table());
        tables
            .map(|value| section.table("to", value, &settings, port))
            .collect::<Option<Vec<_>>>()
    };
    let (read_ports, told) = read("to = ['x', {port = 1}, {port = 2}]", &["to"], ports);
    assert_eq!((read_ports, told), (Some(vec![1, 2]), vec![]));
    let (_, told) = read("to = [{port = 1, wieght = 2}]", &["to"], ports);
    assert_eq!(told, ["`to` of [t] has no key \"wieght\""]);
}

/// A problem that a kind finds is reported at the value, or at the table.
#[test]
fn a_kind_tells_too() {
    let (base, told) = read("a = 1", &["a", "b"], |section| {
        section.problem("a", "is odd", "");
        section.problem("b", "is missing", "write it");
        section.base_dir().to_owned()
    });
    assert_eq!(told, ["`b`: is missing", "`a`: is odd"]);
    assert_eq!(base, Path::new("dir"));
}

/// A value that cannot be read is reported once. How it relates to other values is not judged.
#[test]
fn a_bad_value_is_told_once() {
    let (_, told) = read("a = 10\nb = 1", &["a", "b"], |section| {
        section.optional("a", value::integer(0..=9));
        section.problem("a", "means something only with b = 2", "");
        section.problem("b", "is too small", "");
    });
    assert_eq!(
        told,
        [
            "`a`: expected a whole number from 0 to 9, found the number 10",
            "`b`: is too small"
        ]
    );
}

/// A former name of a key is read too, and mistakes in its value are reported under the current name. Both names at
/// once contradict each other. A table that may not have the key may not have its former name either.
#[test]
fn a_former_name_is_read() {
    let number = |section: &mut Section<'_>| {
        let is_there = section.has("session_unreplied");
        let at = section.span("session_unreplied");
        let number = section.required("session_unreplied", value::integer(0..=9));
        (is_there, at, number)
    };
    let keys = ["session_unreplied"];
    let (read_number, told) = read("session_probation = 3", &keys, number);
    assert_eq!((read_number, told), ((true, Some(20..21), Some(3)), vec![]));
    let (_, told) = read("session_probation = 10", &keys, number);
    assert_eq!(
        told,
        ["`session_unreplied`: expected a whole number from 0 to 9, found the number 10"]
    );
    let (read_number, told) = read(
        "session_probation = 3\nsession_unreplied = 4",
        &keys,
        number,
    );
    assert_eq!(read_number.2, Some(4));
    assert_eq!(told, ["[t] has no key \"session_probation\""]);
    let (_, told) = read("session_probation = 3", &["a"], |_| ());
    assert_eq!(told, ["[t] has no key \"session_probation\""]);
}
