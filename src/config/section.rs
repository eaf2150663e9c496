//! Reads one table of the file, key by key.
//!
//! A section adds what a value parser cannot know: the name of the key, its place in the file, and the keys that exist.
//! Mistakes are added to the problems of the file and reading continues, so that all of them are reported at once. The
//! section is the only interface through which a kind reads its settings:
//!
//! ```
//! use std::time::Duration;
//!
//! use udispatch::prelude::*;
//!
//! const NAMES: ListSetting<String, Required> =
//!     Setting::custom("names", Form::Text("text"), value::nonempty_string)
//!         .required()
//!         .meaning("the names to look for")
//!         .list();
//! const PICK_ALL: Setting<bool> = Setting::choice("pick", &[("all", true), ("random", false)])
//!     .default(true)
//!     .meaning("how many of them must be found");
//! const IDLE: Setting<Duration, Optional> =
//!     Setting::duration("idle", Duration::from_secs(1)..=Duration::from_secs(60))
//!         .optional("never")
//!         .meaning("time after which a client is forgotten");
//!
//! # fn spec(_: Vec<String>, _: bool, _: Option<Duration>) -> Option<Box<dyn HandlerSpec>> { None }
//! fn read(section: &mut Section<'_>) -> Option<Box<dyn HandlerSpec>> {
//!     let names = section.require_list(&NAMES);
//!     let all = section.get(&PICK_ALL);
//!     let idle = section.find(&IDLE);
//!     if all && section.has(IDLE.key) {
//!         section.problem(IDLE.key, "makes no sense with pick = \"all\"", "leave it out");
//!     }
//!     spec(names?, all, idle) // `?` only after every key was read
//! }
//! ```

use std::ops::Range;
use std::path::Path;

use toml::de::{DeString, DeTable, DeValue};

use super::canonical;
use super::definition::{AnySetting, SettingTable};
use super::diagnostics::{Mistake, closest, did_you_mean, listed, quoted};
use super::problem::{Problem, Problems};
use super::setting::{Capped, Fixed, ListSetting, MayBeAbsent, Required, Setting};
use super::source::Placed;
use super::value::Value;

/// A table of the file whose keys are being read.
#[derive(Debug)]
pub struct Section<'a> {
    /// The name of the table in messages, such as `[handler.tape]`.
    name: String,
    table: &'a DeTable<'a>,
    at: Range<usize>,
    keys: Vec<&'static str>,
    /// Former names of keys, each with the current name.
    former_keys: Vec<(&'static str, &'static str)>,
    problems: &'a mut Problems,
}

impl<'a> Section<'a> {
    /// Begins to read the table `name`, which may have the keys of these settings and no others.
    pub(super) fn new(
        name: impl Into<String>,
        table: Placed<&'a DeTable<'a>>,
        settings: SettingTable,
        problems: &'a mut Problems,
    ) -> Section<'a> {
        let former = settings
            .iter()
            .filter_map(|setting| Some((setting.former_key()?, setting.key())));
        Section {
            name: name.into(),
            table: table.value,
            at: table.at,
            keys: settings.iter().map(|setting| setting.key()).collect(),
            former_keys: former.collect(),
            problems,
        }
    }

    /// Permits one more key, which has been read before. Messages list it as the first key.
    pub(super) fn with_first_key(mut self, key: &'static str) -> Section<'a> {
        self.keys.insert(0, key);
        self
    }

    /// Returns the value of a key, or its default if the key is absent or has a bad value, which is reported.
    pub fn get<T: Copy>(&mut self, setting: &Setting<T, Fixed<T>>) -> T {
        self.find(setting).unwrap_or(setting.default_value())
    }

    /// Returns the value of a key, or its default if the key is absent or has a bad value, which is reported. `other`
    /// is the value of the key that the default does not exceed.
    pub fn get_capped<T: Copy + Ord>(&mut self, setting: &Setting<T, Capped<T>>, other: T) -> T {
        self.find(setting).unwrap_or(setting.default_value(other))
    }

    /// Returns the value of a key if it is present. `None` also follows a bad value, which is reported;
    /// [`Section::has`] distinguishes the two.
    pub fn find<T, D: MayBeAbsent>(&mut self, setting: &Setting<T, D>) -> Option<T> {
        self.read(setting)
    }

    /// Returns the value of a key and its place in the file if the key is present. `None` also follows a bad value,
    /// which is reported.
    pub fn find_placed<T, D: MayBeAbsent>(&mut self, setting: &Setting<T, D>) -> Option<Placed<T>> {
        let value = self.value(setting.key)?;
        let at = value.at();
        self.parse(setting, value).map(|value| Placed { value, at })
    }

    /// Returns the value of a key that must be present. Reports a key that is absent or has a bad value.
    pub fn require<T>(&mut self, setting: &Setting<T, Required>) -> Option<T> {
        self.report_absent(setting.key);
        self.read(setting)
    }

    /// Returns the values of a key that holds one value or a list. `None` means that the key is absent or that a bad
    /// element or an empty list was reported.
    pub fn find_list<T, D: MayBeAbsent>(&mut self, setting: &ListSetting<T, D>) -> Option<Vec<T>> {
        self.read_list(setting)
    }

    fn read_list<T, D>(&mut self, setting: &ListSetting<T, D>) -> Option<Vec<T>> {
        let values = self.values(setting)?;
        let mut list = Vec::with_capacity(values.len());
        let count = values.len();
        for value in values {
            list.extend(self.parse(setting.element(), value));
        }
        (list.len() == count).then_some(list)
    }

    /// Returns the values of a key that holds one value or a list and must be present. `None` means that a problem
    /// was reported.
    pub fn require_list<T>(&mut self, setting: &ListSetting<T, Required>) -> Option<Vec<T>> {
        self.report_absent(setting.key);
        self.read_list(setting)
    }

    /// Returns the unread values of a key: the elements of its list, or its single value. This is for lists whose
    /// elements may be tables; see [`Section::table`]. An empty list is reported.
    pub fn values<T, D>(&mut self, setting: &ListSetting<T, D>) -> Option<Vec<Value<'a>>> {
        let value = self.value(setting.key)?;
        let DeValue::Array(array) = value.inner() else {
            return Some(vec![value]);
        };
        if array.is_empty() {
            let mistake = Mistake::new("the list is empty").hint("name at least one");
            self.keep::<()>(setting.key, value.at(), Err(mistake));
            return None;
        }
        Some(array.iter().map(Value::new).collect())
    }

    /// Returns the unread values of a key as [`Section::values`] does, and reports an absent key.
    pub fn require_values<T>(
        &mut self,
        setting: &ListSetting<T, Required>,
    ) -> Option<Vec<Value<'a>>> {
        self.report_absent(setting.key);
        self.values(setting)
    }

    /// Returns the single unread value of a key.
    pub fn raw<T, D>(&self, setting: &Setting<T, D>) -> Option<Value<'a>> {
        self.value(setting.key)
    }

    /// Returns the single unread value of a key as [`Section::raw`] does, and reports an absent key.
    pub fn require_raw<T>(&mut self, setting: &Setting<T, Required>) -> Option<Value<'a>> {
        self.report_absent(setting.key);
        self.raw(setting)
    }

    /// Reads a value that [`Section::values`] or [`Section::raw`] returned, by the parser of its setting.
    pub fn parse<T, D>(&mut self, setting: &Setting<T, D>, value: Value<'_>) -> Option<T> {
        self.keep(setting.key, value.at(), setting.parse(value))
    }

    /// Returns the result of a check of the value at `key`. Reports a mistake.
    pub fn accept<T>(&mut self, key: &str, checked: Result<T, Mistake>) -> Option<T> {
        let at = self.span(key).unwrap_or(self.at());
        self.keep(key, at, checked)
    }

    /// Reads a table that is the value of a key or an element of its list. The setting defines the keys of the inner
    /// table; unknown keys are reported.
    pub fn table<T>(
        &mut self,
        setting: &dyn AnySetting,
        value: Value<'a>,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        let key = setting.key();
        let DeValue::Table(table) = value.inner() else {
            return self.keep(key, value.at(), Err(value.expected("a table")));
        };
        let name = format!("`{key}` of {}", self.name);
        let table = Placed {
            value: table,
            at: value.at(),
        };
        let mut section = Section::new(name, table, setting.inner(), &mut *self.problems);
        let result = read(&mut section);
        section.finish();
        result
    }

    /// Returns the unread entries of the table at a key, in the order of the file. This is for tables with arbitrary
    /// keys. The result is empty if there is no table.
    pub(super) fn entries<T, D>(
        &self,
        setting: &Setting<T, D>,
    ) -> Vec<(Placed<&'a str>, Value<'a>)> {
        let value = self.value(setting.key).map(|value| value.inner());
        let Some(DeValue::Table(table)) = value else {
            return Vec::new();
        };
        let entry = |(key, value): (&'a toml::Spanned<_>, _)| {
            let name: &'a DeString<'a> = key.get_ref();
            (
                Placed {
                    value: name.as_ref(),
                    at: key.span(),
                },
                Value::new(value),
            )
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|(name, _)| name.at.start);
        entries
    }

    /// Returns the canonical text of the table.
    pub(super) fn text(&self) -> String {
        canonical::text(self.table)
    }

    /// Returns whether the key is present, with a good or a bad value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(self.written(key))
    }

    /// Returns the byte range of a key's value.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get(self.written(key)).map(toml::Spanned::span)
    }

    /// Returns the byte range of the table: its header, or the nearest text if it has no header.
    pub fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// Returns the directory that relative file names in the file are joined to.
    pub fn base_dir(&self) -> &Path {
        self.problems.source().base_dir()
    }

    /// Reports a problem with a key at its value, or at the table if the key is absent. An empty `hint` means no
    /// hint. Nothing is reported for a value that already has a problem.
    pub fn problem(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        if self
            .span(key)
            .is_some_and(|at| self.problems.has_problem_at(&at))
        {
            return;
        }
        let at = self.span(key).unwrap_or(self.at());
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        let mistake = Mistake::new(message).maybe_hint(hint);
        self.keep::<()>(key, at, Err(mistake));
    }

    /// Reports a problem at the byte range `at` of a key in an inner table that was read before. Nothing is reported
    /// for a range that already has a problem.
    pub fn problem_at(
        &mut self,
        key: &str,
        at: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.problems.has_problem_at(&at) {
            return;
        }
        self.problems.push(Problem::with_value(
            key,
            at,
            Mistake::new(message).hint(hint),
        ));
    }

    /// Reports any other problem.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a contradiction if more than one of these keys is present. Returns the key that is present; `None` if
    /// there is none or a contradiction.
    pub fn at_most_one<'k>(&mut self, keys: &[&'k str]) -> Option<&'k str> {
        let mut written: Vec<_> = keys.iter().copied().filter(|key| self.has(key)).collect();
        written.sort_by_key(|key| self.span(key).map(|at| at.start));
        if let [first, second, ..] = written.as_slice() {
            let message = format!("`{first}` and `{second}` exclude each other");
            let hint = format!("keep one of {}", listed(keys.iter().copied(), "or"));
            let problem = Problem::error(self.place(second), message)
                .and_at(self.place(first), "also given here");
            self.problems.push(problem.hint(hint));
            return None;
        }
        written.first().copied()
    }

    /// Reports a problem unless exactly one of these keys is present. Returns that key.
    pub fn exactly_one<'k>(&mut self, keys: &[&'k str]) -> Option<&'k str> {
        if !keys.iter().any(|key| self.has(key)) {
            let message = format!(
                "{} needs one of {}",
                self.name,
                listed(keys.iter().copied(), "or")
            );
            self.problems.push(Problem::error(self.at(), message));
            return None;
        }
        self.at_most_one(keys)
    }

    /// Lends the problems of the file to code that reads on behalf of this table.
    pub(super) fn with_problems<T>(&mut self, with: impl FnOnce(&mut Problems) -> T) -> T {
        with(self.problems)
    }

    /// Reports every unknown key of the table.
    pub(super) fn finish(self) {
        for (key, _) in self.table {
            let written = key.get_ref().as_ref();
            if self.is_known(written) {
                continue;
            }
            let known = if self.keys.is_empty() {
                format!("{} has no keys", self.name)
            } else {
                format!("the keys are {}", listed(self.keys.iter().copied(), "and"))
            };
            let room = self.problems.has_room();
            let meant = room
                .then(|| did_you_mean(written, self.keys.iter().copied()))
                .flatten();
            let hint = match meant {
                Some(meant) => format!("{meant} {known}"),
                None => known,
            };
            let message = format!("{} has no key {}", self.name, quoted(written));
            self.problems
                .push(Problem::error(key.span(), message).hint(hint));
        }
    }

    fn read<T, D>(&mut self, setting: &Setting<T, D>) -> Option<T> {
        let value = self.value(setting.key)?;
        self.parse(setting, value)
    }

    fn value(&self, key: &str) -> Option<Value<'a>> {
        debug_assert!(
            self.keys.contains(&key),
            "the key {key} is read, and absent from the settings of {}",
            self.name
        );
        self.table.get(self.written(key)).map(Value::new)
    }

    /// Returns the name that the file uses for this key: the former name if only that one is present.
    fn written<'k>(&self, key: &'k str) -> &'k str {
        if self.table.contains_key(key) {
            return key;
        }
        self.former_keys
            .iter()
            .find(|(former, now)| *now == key && self.table.contains_key(*former))
            .map_or(key, |(former, _)| former)
    }

    /// Returns whether the table may have this key. A former name beside the current one would be a second value for
    /// one key, so it counts as unknown.
    fn is_known(&self, written: &str) -> bool {
        self.keys.contains(&written)
            || self.former_keys.iter().any(|(former, now)| {
                *former == written && self.keys.contains(now) && !self.table.contains_key(*now)
            })
    }

    fn place(&self, key: &str) -> Range<usize> {
        let key = self.table.get_key_value(self.written(key));
        key.map_or(self.at(), |(key, _)| key.span())
    }

    /// Reports a key if it is absent. A misspelt key is reported once, at its place, and not a second time as the
    /// absence of the key that was meant.
    pub fn report_absent(&mut self, key: &str) {
        if !self.has(key) && !self.is_misspelt(key) {
            let message = format!("{} has no `{key}`", self.name);
            let hint = format!("add {key} = ...");
            self.problems
                .push(Problem::error(self.at(), message).hint(hint));
        }
    }

    fn is_misspelt(&self, key: &str) -> bool {
        let mut unknown = self.table.keys().map(|key| key.get_ref().as_ref());
        // A table with far more keys than are known is not searched for misspellings.
        self.table.len() <= 2 * self.keys.len()
            && unknown.any(|word| {
                !self.is_known(word) && closest(word, self.keys.iter().copied()) == Some(key)
            })
    }

    fn keep<T>(&mut self, key: &str, at: Range<usize>, parsed: Result<T, Mistake>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.problems.push(Problem::with_value(key, at, mistake));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
