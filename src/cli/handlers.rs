//! `udispatch handlers [NAME]`: shows the kinds of handlers, from their definitions.

use std::fmt::Write;

use clap::Args;

use super::{Exit, output};
use crate::config::Kind;
use crate::config::diagnostics::{did_you_mean, listed, quoted};
use crate::config::kind::{AnySetting, DefaultText};

/// The width in columns that the output fits.
const WIDTH: usize = 80;

/// Number of blanks between two columns, and before the first.
const GAP: usize = 2;

/// List the kinds of handlers, with their settings and examples
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Describe only this kind
    name: Option<String>,
    /// Print a Markdown table: the kinds, or the settings of NAME
    #[arg(long)]
    markdown: bool,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let chosen: Vec<&Kind> = match &arguments.name {
        None => kinds.iter().collect(),
        Some(name) => match kinds.iter().find(|kind| kind.name == name) {
            Some(kind) => vec![kind],
            None => return unknown(name, kinds),
        },
    };
    let text = match (arguments.markdown, &arguments.name) {
        (true, None) => markdown(&chosen),
        (true, Some(_)) => chosen
            .iter()
            .map(|kind| markdown_of_settings(kind))
            .collect(),
        (false, Some(_)) => chosen.iter().map(|kind| page(kind)).collect(),
        (false, None) => {
            let pages = chosen.iter().map(|kind| format!("\n\n{}", page(kind)));
            overview(&chosen) + &pages.collect::<String>()
        }
    };
    output::print(&text)
}

fn unknown(name: &str, kinds: &[Kind]) -> Exit {
    let names = || kinds.iter().map(|kind| kind.name);
    output::print_error(&format!("error: there is no kind {}", quoted(name)));
    if let Some(meant) = did_you_mean(name, names()) {
        output::print_error(&format!("  {meant}"));
    }
    output::print_error(&format!("  the kinds are {}", listed(names(), "and")));
    Exit::Usage
}

/// Returns the name and summary of each kind.
fn overview(kinds: &[&Kind]) -> String {
    let name_width = widest(kinds.iter().map(|kind| kind.name));
    let widths = [name_width, WIDTH - name_width - 2 * GAP];
    let mut text = "Kinds of handlers:\n\n".to_owned();
    for kind in kinds {
        text += &row(&widths, &[kind.name, kind.summary]);
    }
    text
}

/// Returns the full description of one kind.
fn page(kind: &Kind) -> String {
    let mut text = wrap(&format!("{}: {}", kind.name, kind.summary), WIDTH).join("\n") + "\n\n";
    match kind.settings {
        [] => text += "  no settings\n",
        _ => text += &settings(kind),
    }
    text += "\nExample:\n\n";
    for line in kind.example.trim_end().lines() {
        let _ = writeln!(text, "{}", format!("    {line}").trim_end());
    }
    text
}

/// A setting, and the number of columns by which it is indented.
type Indented = (&'static dyn AnySetting, usize);

/// Returns a row for each key, with its meaning below. The keys of the table that a key may hold follow, indented.
fn settings(kind: &Kind) -> String {
    let all: Vec<Indented> = kind
        .settings
        .iter()
        .flat_map(|setting| std::iter::once((*setting, 0)).chain(inner(*setting)))
        .collect();
    let keys = all
        .iter()
        .map(|(setting, indent)| indent + setting.key().chars().count());
    let key_width = keys.max().unwrap_or(0).max("key".len());
    let defaults: Vec<String> = all.iter().map(|(setting, _)| default(*setting)).collect();
    let default_width = widest(defaults.iter().map(String::as_str)).clamp("default".len(), 20);
    let used = key_width + default_width + 3 * GAP;
    let widths = [key_width, WIDTH.saturating_sub(used).max(20), default_width];
    let mut text = row(&widths, &["key", "values", "default"]);
    for ((setting, indent), default) in all.iter().zip(&defaults) {
        let default = if default.is_empty() { "-" } else { default };
        let key_width = key_width - indent;
        let values = setting.values();
        let mut line = row(
            &[key_width, widths[1], widths[2]],
            &[setting.key(), &values, default],
        );
        line += &row(
            &[key_width, WIDTH - widths[0] - 2 * GAP],
            &["", setting.meaning()],
        );
        text += "\n";
        line.lines()
            .for_each(|line| _ = writeln!(text, "{:indent$}{line}", ""));
    }
    text
}

/// Returns the keys of the table that a key may hold, with their indentation.
fn inner(setting: &dyn AnySetting) -> impl Iterator<Item = Indented> + use<> {
    setting.inner().iter().map(|inner| (*inner, GAP))
}

/// Returns what applies if a key is absent, in one line.
fn default(setting: &dyn AnySetting) -> String {
    match setting.default_text() {
        DefaultText::Required => "required".to_owned(),
        DefaultText::Value(text) | DefaultText::Words(text) => text,
    }
}

/// Returns a Markdown table with a line for each kind, as in the README.
fn markdown(kinds: &[&Kind]) -> String {
    let mut text = "| handler | what it does |\n|---|---|\n".to_owned();
    for kind in kinds {
        let _ = writeln!(text, "| `{}` | {} |", kind.name, cell(kind.summary));
    }
    text
}

/// Returns a Markdown table with a line for each setting of a kind. The keys of an inner table follow the key that
/// holds it.
fn markdown_of_settings(kind: &Kind) -> String {
    let mut text = "| setting | values | default | meaning |\n|---|---|---|---|\n".to_owned();
    for setting in kind.settings {
        text += &setting_row(setting.key(), *setting);
        for inner in setting.inner() {
            text += &setting_row(&format!("{}.{}", setting.key(), inner.key()), *inner);
        }
    }
    text
}

fn setting_row(key: &str, setting: &dyn AnySetting) -> String {
    let values = cell(&setting.values());
    let default = cell(&default(setting));
    let meaning = cell(setting.meaning());
    format!("| `{key}` | {values} | {default} | {meaning} |\n")
}

/// Escapes text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Returns the cells side by side, each wrapped to the width of its column.
fn row(widths: &[usize], cells: &[&str]) -> String {
    let columns = widths
        .iter()
        .zip(cells)
        .map(|(width, cell)| wrap(cell, *width));
    let columns: Vec<Vec<String>> = columns.collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for index in 0..height {
        let mut line = String::new();
        for (column, width) in columns.iter().zip(widths) {
            let cell = column.get(index).map_or("", String::as_str);
            let _ = write!(line, "{:GAP$}{cell:width$}", "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Returns lines of whole words. None is longer than `width` unless a single word is.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.len() - 1;
        let used = lines[line].chars().count();
        match used {
            0 => lines[line].push_str(word),
            _ if used + 1 + word.chars().count() <= width => {
                lines[line].push(' ');
                lines[line].push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn widest<'a>(words: impl Iterator<Item = &'a str>) -> usize {
    words.map(|word| word.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kind::{Form, ListSetting, Required, Setting};
    use crate::config::value;

    const KIND: Kind = Kind {
        name: "forward",
        summary: "sends each datagram on to one upstream or several, which is a long line for a summary",
        settings: &[&UPSTREAMS, &PICK],
        example: "[[route]]\n\ndestination = \"127.0.0.1:1\"\n",
        read: |_| None,
    };

    const UPSTREAMS: ListSetting<String, Required> = Setting::custom(
        "upstreams",
        Form::OneOf(&[
            Form::Text("\"address:port\" | an address or the name of a host that is resolved"),
            Form::Table(&[&WEIGHT]),
        ]),
        value::string,
    )
    .required()
    .meaning("Where to send. Names are resolved at start, never later, which is why a restart is needed.")
    .list();

    const WEIGHT: Setting<u32> = Setting::integer("weight", 1..=1_000).default(1).meaning(
        "How much it gets, compared with the others, which is a long line for a meaning too.",
    );

    const PICK: Setting<bool> = Setting::choice("pick", &[("all", true), ("random", false)])
        .default(true)
        .meaning("Which get it.");

    /// The description of every kind fits 80 columns.
    #[test]
    fn pages_fit_80_columns() {
        let text = overview(&[&KIND]) + &page(&KIND);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        assert!(
            text.contains("\n  pick       \"all\" or \"random\""),
            "{text}"
        );
        assert!(text.contains("\n             Which get it."), "{text}");
        assert!(text.contains("\n    weight   1 to 1000"), "{text}");
        assert!(text.contains("\n             How much it gets"), "{text}");
        assert!(
            text.contains("    destination = \"127.0.0.1:1\"\n"),
            "{text}"
        );
    }

    /// Each kind has one row, and no cell breaks the table.
    #[test]
    fn markdown_is_one_row_a_kind() {
        let text = markdown(&[&KIND, &KIND]);
        assert_eq!(text.lines().count(), 4);
        let text = markdown_of_settings(&KIND);
        assert!(text.contains("| `upstreams` |"), "{text}");
        assert!(text.contains("| `upstreams.weight` |"), "{text}");
    }
}
