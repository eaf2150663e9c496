//! Parses a whole file: first its syntax, then the four kinds of tables that it may have.
//!
//! If the file is not valid TOML, only the syntax errors are reported. The meaning of its tables would be a guess.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definition::SettingTable;
use super::diagnostics::{closest, quoted};
use super::handlers::Registry;
use super::limits::{RECOVERY_BYTES_MAX, ROUTES_MAX, TESTS_MAX};
use super::problem::{Problem, Problems};
use super::route::RouteDraft;
use super::section::Section;
use super::source::{Placed, SourceFile};
use super::{Config, Daemon, Kind, daemon, route, route_checks, test};

const MINIMAL: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"";

/// Parses the text of a file.
///
/// # Errors
///
/// Returns every problem of the file, if at least one of them is an error.
pub(super) fn parse(source: SourceFile, kinds: &[Kind]) -> Result<Config, Problems> {
    let mut problems = Problems::new(source.clone());
    let (document, errors) = tables(source.text());
    for error in without_consequences(source.text(), errors) {
        problems.push(syntax(&source, &error));
    }
    if problems.errors() > 0 {
        return Err(problems);
    }
    let document = document.get_ref();
    let daemon = read_daemon(document, &mut problems);
    let mut handlers = Registry::read(document.get("handler"), kinds, &mut problems);
    let drafts = read_routes(document, &mut handlers, &mut problems);
    let tests = read_tests(document, &mut problems);
    check_tables(document, &mut problems);
    let written = document
        .get("route")
        .and_then(|value| value.get_ref().as_array())
        .map_or(0, |tables| tables.len());
    let is_complete = drafts.len() == written;
    let routes = route_checks::finish(drafts, &mut problems);
    let labels = || routes.iter().map(|route| route.label.as_str()).collect();
    let known = test::Known {
        routes: is_complete.then(labels),
        handlers: &handlers,
    };
    let tests = test::finish(tests, &known, &mut problems);
    let handlers = handlers.finish(&mut problems);
    if problems.errors() > 0 {
        return Err(problems);
    }
    Ok(Config {
        daemon,
        routes,
        handlers,
        tests,
        warnings: problems,
        source,
    })
}

/// Parses the syntax. Returns the tables and the syntax errors. In a large file that is not TOML, each byte can be an
/// error, and the parser keeps each error in 200 bytes. Only the first error of such a file is requested.
fn tables(text: &str) -> (Spanned<DeTable<'_>>, Vec<toml::de::Error>) {
    if text.len() <= RECOVERY_BYTES_MAX {
        return DeTable::parse_recoverable(text);
    }
    match DeTable::parse(text) {
        Ok(tables) => (tables, Vec::new()),
        Err(error) => (Spanned::new(0..0, DeTable::new()), vec![error]),
    }
}

/// Removes the errors that only follow from another one. If a table is defined twice, its keys are repeated as well.
fn without_consequences(text: &str, errors: Vec<toml::de::Error>) -> Vec<toml::de::Error> {
    let headers = headers(text);
    let mut repeated = None;
    let mut is_consequence = |error: &toml::de::Error| {
        let at = error
            .span()
            .filter(|_| error.message().contains("duplicate key"));
        let Some(at) = at.map(|at| at.start) else {
            return false;
        };
        let above = headers.partition_point(|header| header.start <= at);
        match headers[..above].last() {
            Some(header) if header.contains(&at) => {
                repeated = Some(above);
                false
            }
            _ => repeated == Some(above),
        }
    };
    errors
        .into_iter()
        .filter(|error| !is_consequence(error))
        .collect()
}

/// Returns the byte ranges of the lines that begin a table, or that look as if they did.
fn headers(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        start += line.len();
        (start - line.len()..start, line)
    });
    lines
        .filter(|(_, line)| line.trim_start().starts_with('['))
        .map(|(at, _)| at)
        .collect()
}

fn syntax(source: &SourceFile, error: &toml::de::Error) -> Problem {
    let end = source.text().len();
    let at = error.span().unwrap_or(end..end);
    let (message, hint) = match error.message() {
        // The parser reports an absent value as an empty string without quotes.
        message if message.contains("string values must be quoted") => {
            if at.is_empty() {
                ("the value is missing", None)
            } else {
                (message, Some("put it between quotes"))
            }
        }
        message if message.contains("duplicate key") => {
            let hint =
                "a key and a table [NAME] can be written only once; write [[route]] for each route";
            (message, Some(hint))
        }
        message => (message, None),
    };
    Problem::error(at, format!("not TOML: {message}")).maybe_hint(hint.map(str::to_owned))
}

fn read_daemon(document: &DeTable<'_>, problems: &mut Problems) -> Daemon {
    let Some(value) = document.get("daemon") else {
        return Daemon::default();
    };
    let DeValue::Table(table) = value.get_ref() else {
        let problem = Problem::error(value.span(), "`daemon` is not a table");
        problems.push(problem.hint("write [daemon] once, with its keys below it"));
        return Daemon::default();
    };
    let table = Placed {
        value: table,
        at: value.span(),
    };
    let mut section = Section::new("[daemon]", table, daemon::SETTINGS, problems);
    let daemon = Daemon::read(&mut section);
    section.finish();
    daemon
}

fn read_routes(
    document: &DeTable<'_>,
    handlers: &mut Registry<'_>,
    problems: &mut Problems,
) -> Vec<RouteDraft> {
    let tables = match document
        .get("route")
        .map(|value| (value.span(), value.get_ref()))
    {
        // If the table exists under another name, `check_tables` reports that.
        None if document
            .keys()
            .any(|key| meant(key.get_ref()) == Some("[[route]]")) =>
        {
            return Vec::new();
        }
        None => {
            let problem = Problem::error(0..0, "no [[route]]: nothing to do");
            problems.push(problem.hint(format!(
                "the smallest file that does something:\n\n{MINIMAL}"
            )));
            return Vec::new();
        }
        Some((at, DeValue::Array(tables))) if tables.is_empty() => {
            problems.push(Problem::error(at, "no [[route]]: nothing to do").hint(MINIMAL));
            return Vec::new();
        }
        Some((_, DeValue::Array(tables))) => tables,
        Some((at, DeValue::Table(_))) => {
            let problem = Problem::error(
                at,
                "a route is an element of a list, so it needs double brackets",
            );
            problems.push(problem.hint("write [[route]]"));
            return Vec::new();
        }
        Some((at, _)) => {
            let problem = Problem::error(at, "`route` is not a list of tables");
            problems.push(problem.hint(MINIMAL));
            return Vec::new();
        }
    };
    if let Some(first) = tables.get(ROUTES_MAX) {
        let problem = Problem::error(first.span(), format!("more than {ROUTES_MAX} routes"));
        problems
            .push(problem.hint("write prefixes and ranges instead of single addresses and ports"));
        return Vec::new();
    }
    let tables = tables.iter();
    tables
        .filter_map(|value| read_route(value, handlers, problems))
        .collect()
}

fn read_route(
    value: &Spanned<DeValue<'_>>,
    handlers: &mut Registry<'_>,
    problems: &mut Problems,
) -> Option<RouteDraft> {
    let DeValue::Table(table) = value.get_ref() else {
        problems.push(Problem::error(value.span(), "a route is a table").hint(MINIMAL));
        return None;
    };
    let table = Placed {
        value: table,
        at: value.span(),
    };
    let mut section = Section::new("[[route]]", table, route::SETTINGS, problems);
    let draft = route::read(&mut section, handlers);
    section.finish();
    draft
}

fn read_tests(document: &DeTable<'_>, problems: &mut Problems) -> Vec<test::TestDraft> {
    let Some(value) = document.get("test") else {
        return Vec::new();
    };
    let DeValue::Array(tables) = value.get_ref() else {
        let message = if value.get_ref().is_table() {
            "a test is an element of a list, so it needs double brackets"
        } else {
            "`test` is not a list of tables"
        };
        problems.push(Problem::error(value.span(), message).hint("write [[test]]"));
        return Vec::new();
    };
    if let Some(first) = tables.get(TESTS_MAX) {
        problems.push(Problem::error(
            first.span(),
            format!("more than {TESTS_MAX} tests"),
        ));
        return Vec::new();
    }
    tables
        .iter()
        .filter_map(|value| read_test(value, problems))
        .collect()
}

fn read_test(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<test::TestDraft> {
    let DeValue::Table(table) = value.get_ref() else {
        problems.push(
            Problem::error(value.span(), "a test is a table")
                .hint("write [[test]], with its keys below it"),
        );
        return None;
    };
    let table = Placed {
        value: table,
        at: value.span(),
    };
    let mut section = Section::new("[[test]]", table, test::SETTINGS, problems);
    let draft = test::read(&mut section);
    section.finish();
    draft
}

/// Reports every top-level name that is not one of the four.
fn check_tables(document: &DeTable<'_>, problems: &mut Problems) {
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        if matches!(name, "daemon" | "route" | "handler" | "test") {
            continue;
        }
        let is_table = value.get_ref().is_table();
        let message = if is_table || value.get_ref().is_array() {
            format!("there is no table {}", quoted(name))
        } else {
            format!("the key {} is in no table", quoted(name))
        };
        let problem = Problem::error(key.span(), message);
        problems.push(problem.hint(placement_hint(name, value.get_ref())));
    }
}

fn placement_hint(name: &str, value: &DeValue<'_>) -> String {
    let tables = "the tables are [daemon], [[route]], [handler.NAME] and [[test]]";
    if !value.is_table() && has_key(daemon::SETTINGS, name) {
        return format!("`{name}` belongs below [daemon]");
    }
    if !value.is_table() && has_key(route::SETTINGS, name) {
        return format!("`{name}` belongs below a [[route]]");
    }
    match meant(name) {
        Some(meant) => format!("did you mean {meant}? {tables}"),
        None => tables.to_owned(),
    }
}

fn has_key(settings: SettingTable, name: &str) -> bool {
    settings.iter().any(|setting| setting.key() == name)
}

/// Returns the table that was probably meant, in the notation of the file.
fn meant(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    match closest(
        &lower,
        [
            "daemon", "route", "routes", "handler", "handlers", "test", "tests",
        ],
    ) {
        Some("daemon") => Some("[daemon]"),
        Some("route" | "routes") => Some("[[route]]"),
        Some("handler" | "handlers") => Some("[handler.NAME]"),
        Some("test" | "tests") => Some("[[test]]"),
        _ if matches!(lower.as_str(), "global" | "server" | "main" | "udispatch") => {
            Some("[daemon]")
        }
        _ => None,
    }
}
