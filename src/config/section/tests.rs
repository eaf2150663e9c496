//! Tests of `config/section.rs`.

use super::super::definition::Form;
use super::super::setting::{Optional, Undecided};
use super::super::source::SourceFile;
use super::super::value;
use super::*;

const fn digit(key: &'static str) -> Setting<u8, Undecided> {
    Setting::integer(key, 0..=9)
}

const DIGIT: Setting<u8, Optional> = digit("a").optional("none");

const OTHER_DIGIT: Setting<u8, Optional> = digit("b").optional("none");

const A: SettingTable = &[&DIGIT];

const A_AND_B: SettingTable = &[&DIGIT, &OTHER_DIGIT];

const DIGITS: ListSetting<u8, Required> = digit("a").required().list();

/// Reads `text` as one table. Returns what was read, and the problems that were reported.
fn read<T>(
    text: &str,
    settings: SettingTable,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> (T, Vec<String>) {
    let mut problems = Problems::new(SourceFile::new(Path::new("dir/u.toml"), text));
    let table = DeTable::parse(text).expect("the test's TOML is well formed");
    let table = Placed {
        value: table.get_ref(),
        at: 0..0,
    };
    let mut section = Section::new("[t]", table, settings, &mut problems);
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
    let bytes = |section: &mut Section<'_>| section.require_list(&DIGITS);
    assert_eq!(read("a = 1", A, bytes), (Some(vec![1]), vec![]));
    assert_eq!(read("a = [1, 2]", A, bytes), (Some(vec![1, 2]), vec![]));
    let (list, reported) = read("a = [1, 10, true]", A, bytes);
    assert_eq!((list, reported.len()), (None, 2));
    assert_eq!(read("", A, bytes).1, ["[t] has no `a`"]);
}

/// A misspelt key is reported once, with the key that was meant.
#[test]
fn a_misspelt_required_key_is_one_problem() {
    const UPSTREAMS: Setting<String, Required> =
        Setting::custom("upstreams", Form::Text("text"), value::string).required();
    let settings: SettingTable = &[&UPSTREAMS, &DIGIT];
    let (_, reported) = read("upstraems = 1", settings, |section| {
        section.require(&UPSTREAMS)
    });
    assert_eq!(reported, ["[t] has no key \"upstraems\""]);
}

/// Of keys that exclude each other, two are reported.
#[test]
fn one_of_several() {
    let one = |section: &mut Section<'_>| section.exactly_one(&["a", "b"]);
    assert_eq!(read("b = 1", A_AND_B, one), (Some("b"), vec![]));
    assert_eq!(read("", A_AND_B, one).1, ["[t] needs one of a or b"]);
    assert_eq!(
        read("b = 1\na = 1", A_AND_B, one).1,
        ["`b` and `a` exclude each other"]
    );
}

/// A list may hold words and tables. An inner table has keys and problems of its own.
#[test]
fn tables_in_lists() {
    const PORT: Setting<u16, Required> = Setting::integer("port", 1..=9).required();
    const TO: ListSetting<String, Optional> =
        Setting::custom("to", Form::Table(&[&PORT]), value::string)
            .optional("none")
            .list();
    let ports = |section: &mut Section<'_>| {
        let values = section.values(&TO)?;
        let tables = values.into_iter().filter(Value::is_table);
        tables
            .map(|value| section.table(&TO, value, |section| section.require(&PORT)))
            .collect::<Option<Vec<_>>>()
    };
    let (read_ports, reported) = read("to = ['x', {port = 1}, {port = 2}]", &[&TO], ports);
    assert_eq!((read_ports, reported), (Some(vec![1, 2]), vec![]));
    let (_, reported) = read("to = [{port = 1, wieght = 2}]", &[&TO], ports);
    assert_eq!(reported, ["`to` of [t] has no key \"wieght\""]);
}

/// A problem that a kind finds is reported at the value, or at the table.
#[test]
fn a_kind_reports_problems() {
    let (base, reported) = read("a = 1", A_AND_B, |section| {
        section.problem("a", "is odd", "");
        section.problem("b", "is missing", "write it");
        section.base_dir().to_owned()
    });
    assert_eq!(reported, ["`b`: is missing", "`a`: is odd"]);
    assert_eq!(base, Path::new("dir"));
}

/// A value that cannot be read is reported once. Its relation to other values is not checked.
#[test]
fn a_bad_value_is_reported_once() {
    let ((), reported) = read("a = 10\nb = 1", A_AND_B, |section| {
        section.find(&DIGIT);
        section.problem("a", "means something only with b = 2", "");
        section.problem("b", "is too small", "");
    });
    assert_eq!(
        reported,
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
    const UNREPLIED: Setting<u8, Required> = digit("unreplied").required().formerly("probation");
    let number = |section: &mut Section<'_>| {
        let is_there = section.has(UNREPLIED.key);
        let at = section.span(UNREPLIED.key);
        let number = section.require(&UNREPLIED);
        (is_there, at, number)
    };
    let (read_number, reported) = read("probation = 3", &[&UNREPLIED], number);
    assert_eq!(
        (read_number, reported),
        ((true, Some(12..13), Some(3)), vec![])
    );
    let (_, reported) = read("probation = 10", &[&UNREPLIED], number);
    assert_eq!(
        reported,
        ["`unreplied`: expected a whole number from 0 to 9, found the number 10"]
    );
    let (read_number, reported) = read("probation = 3\nunreplied = 4", &[&UNREPLIED], number);
    assert_eq!(read_number.2, Some(4));
    assert_eq!(reported, ["[t] has no key \"probation\""]);
    let ((), reported) = read("probation = 3", A, |_| ());
    assert_eq!(reported, ["[t] has no key \"probation\""]);
}

/// An absent key has its default: a value, or that of another key if it is less. A bad value is reported, and the
/// default applies as well.
#[test]
fn defaults() {
    const FIXED: Setting<u8> = digit("a").default(5);
    const CAPPED: Setting<u8, Capped<u8>> = digit("b").capped(5, "a");
    let both = |section: &mut Section<'_>| {
        let fixed = section.get(&FIXED);
        (fixed, section.get_capped(&CAPPED, fixed))
    };
    assert_eq!(read("", A_AND_B, both), ((5, 5), vec![]));
    assert_eq!(read("a = 3", A_AND_B, both), ((3, 3), vec![]));
    assert_eq!(read("a = 3\nb = 4", A_AND_B, both), ((3, 4), vec![]));
    let (values, reported) = read("a = 10", A_AND_B, both);
    assert_eq!((values, reported.len()), ((5, 5), 1));
}

/// A value and the place where it stands are read together, and what a later check finds is reported there.
#[test]
fn places_and_later_checks() {
    let (placed, reported) = read("a = 7", A, |section| section.find_placed(&DIGIT));
    let placed = placed.map(|placed| (placed.value, placed.at));
    assert_eq!((placed, reported), (Some((7, 4..5)), vec![]));
    let (checked, reported) = read("a = 7", A, |section| {
        section.accept::<()>("a", Err(Mistake::new("is odd")))
    });
    assert_eq!((checked, reported), (None, vec!["`a`: is odd".to_owned()]));
}
