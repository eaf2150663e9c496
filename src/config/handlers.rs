//! The `[handler.NAME]` tables, and the handlers that routes name.
//!
//! The kinds are passed in (see `kind.rs`). A route can name a kind that needs no settings. Such a kind becomes a
//! handler with the kind's name, which all routes that name it share.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::canonical;
use super::diagnostics::{Mistake, did_you_mean, listed, quoted};
use super::kind::{HandlerSpec, Kind, Upstream};
use super::limits::{HANDLERS_MAX, NAME_BYTES_MAX};
use super::problem::{Problem, Problems};
use super::section::Section;
use super::source::{Placed, SourceFile};
use super::value::{Value, string};
use crate::dispatch::handler::HandlerId;

/// A handler as the file defines it.
#[derive(Clone)]
pub struct NamedHandler {
    /// The name of the handler's table, or of its kind if it has no table.
    pub name: String,
    /// The kind of the handler.
    pub kind: Kind,
    /// The checked settings, from which each worker's handler is built.
    pub spec: Arc<dyn HandlerSpec>,
    /// The canonical text of the handler's table (see [`canonical`]), or its kind if it has no table. A handler of
    /// another file is the same handler if its name and text are equal.
    pub text: String,
    /// Whether the handler belongs to an older file and only serves its remaining sessions.
    pub is_retired: bool,
}

impl fmt::Debug for NamedHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedHandler({:?}, {:?})", self.name, self.spec)
    }
}

impl NamedHandler {
    /// Returns everything that the handler depends on, in canonical form. This is its settings, and the length and
    /// hash of the data that was read from other files.
    pub fn contents(&self) -> String {
        let mut text = self.text.clone();
        let beside = self.spec.beside();
        if !beside.is_empty() {
            let mark = foldhash::fast::FixedState::with_seed(0).hash_one(beside);
            text += &format!("\n# read beside: {} bytes, {mark:016x}", beside.len());
        }
        text
    }
}

/// The handlers while the file is being read.
pub(super) struct Registry<'k> {
    kinds: &'k [Kind],
    ids: HashMap<String, HandlerId>,
    entries: Vec<RegisteredHandler>,
}

struct RegisteredHandler {
    name: String,
    at: Range<usize>,
    is_used: bool,
    /// `None` if the handler's table is wrong; the problem has been reported.
    handler: Option<NamedHandler>,
}

impl<'k> Registry<'k> {
    /// Reads all `[handler.NAME]` tables and reports their problems.
    pub(super) fn read(
        root: Option<&Spanned<DeValue<'_>>>,
        kinds: &'k [Kind],
        problems: &mut Problems,
    ) -> Registry<'k> {
        let mut registry = Registry {
            kinds,
            ids: HashMap::new(),
            entries: Vec::new(),
        };
        let Some(root) = root else { return registry };
        let DeValue::Table(tables) = root.get_ref() else {
            let problem = Problem::error(root.span(), "`handler` is not a table of handlers");
            problems.push(problem.hint("write a table [handler.NAME] for each handler"));
            return registry;
        };
        if tables.len() > HANDLERS_MAX {
            let message = format!("more than {HANDLERS_MAX} handlers");
            problems.push(Problem::error(root.span(), message));
            return registry;
        }
        for (name, value) in tables {
            let name = Placed {
                value: name.get_ref().as_ref(),
                at: name.span(),
            };
            registry.read_one(name, value, problems);
        }
        registry
    }

    fn read_one(
        &mut self,
        name: Placed<&str>,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Problems,
    ) {
        let DeValue::Table(table) = value.get_ref() else {
            let problem = Problem::error(name.at, not_a_table(name.value));
            problems.push(problem.hint("write a table [handler.NAME] with kind = \"...\" in it"));
            return;
        };
        if let Err(mistake) = check_name(name.value) {
            let message = format!("the name of a handler {}", mistake.message);
            problems.push(Problem::error(name.at.clone(), message).maybe_hint(mistake.hint));
        } else if self.kind(name.value).is_some() {
            let message = format!("{} is the name of a kind", quoted(name.value));
            let hint = format!("choose another name, such as [handler.my_{}]", name.value);
            problems.push(Problem::error(name.at.clone(), message).hint(hint));
        }
        let handler = self.read_table(&name, table, value.span(), problems);
        self.insert(name.value, name.at, handler);
    }

    fn read_table(
        &self,
        name: &Placed<&str>,
        table: &DeTable<'_>,
        at: Range<usize>,
        problems: &mut Problems,
    ) -> Option<NamedHandler> {
        let title = format!("[handler.{}]", quoted(name.value).trim_matches('"'));
        let Some(kind) = self.kind_of(&title, table, &at, problems) else {
            return None; // Without the kind, the accepted keys are unknown.
        };
        let before = problems.errors();
        let placed = Placed {
            value: table,
            at: at.clone(),
        };
        let section = Section::new(title, placed, kind.settings, problems);
        let mut section = section.with_first_key("kind");
        let spec = (kind.read)(&mut section);
        section.finish();
        if spec.is_none() && problems.errors() == before {
            problems.push(unexplained(kind, at.clone()));
        }
        Some(NamedHandler {
            name: name.value.to_owned(),
            kind,
            spec: Arc::from(spec?),
            text: canonical::text(table),
            is_retired: false,
        })
    }

    fn kind_of(
        &self,
        title: &str,
        table: &DeTable<'_>,
        at: &Range<usize>,
        problems: &mut Problems,
    ) -> Option<Kind> {
        let names = || self.kinds.iter().map(|kind| kind.name);
        let all = || format!("the kinds are {}", listed(names(), "and"));
        let Some(value) = table.get("kind") else {
            let problem = Problem::error(at.clone(), format!("{title} has no `kind`"));
            problems.push(problem.hint(format!("add kind = \"...\"; {}", all())));
            return None;
        };
        let unknown = match string(Value::new(value)) {
            Ok(written) => {
                if let Some(kind) = self.kind(&written) {
                    return Some(kind);
                }
                let hint = did_you_mean(&written, names());
                let hint = hint.map_or(all(), |meant| format!("{meant} {}", all()));
                Mistake::new(format!("there is no kind {}", quoted(&written))).hint(hint)
            }
            Err(mistake) => mistake.hint(all()),
        };
        problems.push(Problem::with_value("kind", value.span(), unknown));
        None
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        self.kinds.iter().find(|kind| kind.name == name).copied()
    }

    fn insert(&mut self, name: &str, at: Range<usize>, handler: Option<NamedHandler>) -> HandlerId {
        // There are at most HANDLERS_MAX tables and one handler for each kind, far fewer than a 32-bit index can
        // number.
        let id = HandlerId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.ids.insert(name.to_owned(), id);
        self.entries.push(RegisteredHandler {
            name: name.to_owned(),
            at,
            is_used: false,
            handler,
        });
        id
    }

    /// Returns the handler that a route names. If there is none, reports that and returns `None`.
    pub(super) fn resolve(
        &mut self,
        name: &Placed<String>,
        problems: &mut Problems,
    ) -> Option<HandlerId> {
        let id = match self.ids.get(&name.value) {
            Some(id) => *id,
            None => {
                if let Some(kind) = self.kind(&name.value) {
                    let handler = implicit(kind, &name.at, problems);
                    self.insert(&name.value, name.at.clone(), handler)
                } else {
                    problems.push(self.unknown(name, problems.has_room()));
                    return None;
                }
            }
        };
        self.entries[id.index()].is_used = true;
        Some(id)
    }

    /// Returns the handler with this name, if the file has one.
    pub(super) fn find(&self, name: &str) -> Option<HandlerId> {
        self.ids.get(name).copied()
    }

    /// Returns the names of all handlers, in the order of the file's tables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Returns the upstreams of all handlers; `None` if a handler could not be read, because its upstreams are
    /// unknown then.
    pub(super) fn upstreams(&self) -> Option<Vec<&Upstream>> {
        let handlers = self.entries.iter().map(|entry| entry.handler.as_ref());
        let handlers: Option<Vec<&NamedHandler>> = handlers.collect();
        Some(
            handlers?
                .into_iter()
                .flat_map(|handler| handler.spec.upstreams())
                .collect(),
        )
    }

    fn unknown(&self, name: &Placed<String>, has_room: bool) -> Problem {
        let written = name.value.as_str();
        let message = format!(
            "`handler`: there is no handler and no kind {}",
            quoted(written)
        );
        let tables = self.entries.iter().map(|entry| entry.name.as_str());
        let bare = self
            .kinds
            .iter()
            .filter(|kind| kind.required().next().is_none());
        let names = tables.chain(bare.map(|kind| kind.name));
        let meant = has_room.then(|| did_you_mean(written, names)).flatten();
        let all_kinds = self.kinds.iter().map(|kind| kind.name);
        let hint = meant.unwrap_or_else(|| {
            let kinds = listed(all_kinds, "and");
            format!("write a table [handler.NAME] and name it here; the kinds are {kinds}")
        });
        Problem::error(name.at.clone(), message).hint(hint)
    }

    /// Returns the handlers that could be read. A [`HandlerId`] is an index into them only if the file has no errors.
    /// Reports a warning for each handler that no route names.
    pub(super) fn finish(self, problems: &mut Problems) -> Vec<NamedHandler> {
        for entry in self.entries.iter().filter(|entry| !entry.is_used) {
            let message = format!("no route names the handler {}", quoted(&entry.name));
            let hint = format!("name it in a [[route]]: handler = {}", quoted(&entry.name));
            problems.push(Problem::warning(entry.at.clone(), message).hint(hint));
        }
        let handlers = self.entries.into_iter();
        handlers.filter_map(|entry| entry.handler).collect()
    }
}

/// Reads one handler from its name and its canonical text, for example from another process. The byte ranges in the
/// handler and in problems refer to `text`.
///
/// # Errors
///
/// Returns the problems if the name is not allowed or `text` is not valid TOML. The same applies if the settings are
/// wrong or their kind is unknown.
pub fn one(name: &str, text: &str, kinds: &[Kind]) -> Result<NamedHandler, Problems> {
    let source = SourceFile::new(Path::new(&format!("[handler.{name}]")), text);
    let mut problems = Problems::new(source);
    if let Err(mistake) = check_name(name) {
        problems.push(Problem::error(
            0..0,
            format!("the name of a handler {}", mistake.message),
        ));
        return Err(problems);
    }
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            problems.push(Problem::error(
                error.span().unwrap_or(0..0),
                format!("not TOML: {}", error.message()),
            ));
            return Err(problems);
        }
    };
    let registry = Registry {
        kinds,
        ids: HashMap::new(),
        entries: Vec::new(),
    };
    let name = Placed {
        value: name,
        at: 0..0,
    };
    match registry.read_table(&name, table.get_ref(), 0..text.len(), &mut problems) {
        Some(handler) if problems.errors() == 0 => Ok(handler),
        _ => Err(problems),
    }
}

/// Makes a handler from a kind that a route names without a table. Its settings are read from an empty table.
fn implicit(kind: Kind, at: &Range<usize>, problems: &mut Problems) -> Option<NamedHandler> {
    let hint = || {
        let table = example_table(&kind);
        format!("write a table, and its name here:\n\n{table}")
    };
    let required: Vec<&str> = kind.required().collect();
    if !required.is_empty() {
        let keys = listed(required.iter().copied(), "and");
        let message = format!("`handler`: {} needs settings: {keys}", quoted(kind.name));
        problems.push(Problem::error(at.clone(), message).hint(hint()));
        return None;
    }
    let empty = DeTable::new();
    let table = Placed {
        value: &empty,
        at: at.clone(),
    };
    let mut found = Problems::new(problems.source().clone());
    let name = quoted(kind.name);
    let mut section = Section::new(name, table, kind.settings, &mut found);
    let spec = (kind.read)(&mut section);
    if let Some(problem) = found.iter().next() {
        let message = format!("`handler`: {}", problem.message);
        problems.push(Problem::error(at.clone(), message).hint(hint()));
    } else if spec.is_none() {
        problems.push(unexplained(kind, at.clone()));
    }
    Some(NamedHandler {
        name: kind.name.to_owned(),
        kind,
        spec: Arc::from(spec?),
        text: format!("kind = \"{}\"", kind.name),
        is_retired: false,
    })
}

/// Returns the problem of a kind that rejects its settings without an explanation. That is a bug in the kind. The
/// file is rejected all the same, because the list of handlers must have no gap.
fn unexplained(kind: Kind, at: Range<usize>) -> Problem {
    Problem::error(
        at,
        format!(
            "the kind {} rejects these settings without a reason, which is a bug in the kind",
            quoted(kind.name)
        ),
    )
}

/// Returns the `[handler.…]` table of a kind's example.
fn example_table(kind: &Kind) -> String {
    let lines = kind.example.lines().map(str::trim);
    let mut table = lines.skip_while(|line| !line.starts_with("[handler."));
    let header = table.next().map(str::to_owned);
    let header = header.unwrap_or(format!("[handler.my_{0}]\nkind = \"{0}\"", kind.name));
    let rest = table.take_while(|line| !line.starts_with('[') && !line.is_empty());
    rest.fold(header, |text, line| format!("{text}\n{line}"))
}

fn not_a_table(name: &str) -> String {
    format!(
        "`handler.{}` is not a table",
        quoted(name).trim_matches('"')
    )
}

/// Checks the name of a handler or a route. Names become labels of metrics and words of command lines.
///
/// # Errors
///
/// Returns a mistake if the name is empty, longer than [`NAME_BYTES_MAX`] bytes, or has a character other than ASCII
/// letters, digits, hyphens and underscores.
pub(super) fn check_name(name: &str) -> Result<(), Mistake> {
    let hint = format!("1 to {NAME_BYTES_MAX} letters, digits, hyphens and underscores");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match name {
        "" => Err(Mistake::new("is empty").hint(hint)),
        _ if name.len() > NAME_BYTES_MAX => Err(Mistake::new("is too long").hint(hint)),
        _ if !name.bytes().all(is_plain) => {
            Err(Mistake::new(format!("cannot be {}", quoted(name))).hint(hint))
        }
        _ => Ok(()),
    }
}
