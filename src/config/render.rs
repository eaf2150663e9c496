//! Draws one problem: the message, file:line:column, the line, a caret and a hint.
//!
//! The drawing library passes some of its input to the terminal unchanged. Everything that comes from the file is
//! therefore escaped here first.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::Renderer;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Snippet};

use super::diagnostics::{is_unprintable, printable};
use super::limits::{LINE_BYTES_SHOWN_MAX, PROBLEMS_SHOWN_MAX};
use super::problem::{Problem, Problems, Severity};
use super::source::SourceFile;

impl Problems {
    /// Returns the whole text for the user. `colours` adds escape sequences for a terminal.
    pub fn render(&self, colours: bool) -> String {
        let mut text = String::new();
        for problem in self.iter().take(PROBLEMS_SHOWN_MAX) {
            text.push_str(&draw(self.source(), problem, colours));
            text.push_str("\n\n");
        }
        let total = self.errors() + self.warnings();
        if total > PROBLEMS_SHOWN_MAX {
            text.push_str(&format!("... and {} more\n\n", total - PROBLEMS_SHOWN_MAX));
        }
        text.push_str(&self.summary());
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Returns the text of one problem, without a final line end.
fn draw(source: &SourceFile, problem: &Problem, colours: bool) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(printable(&problem.message)));
    let first = Underline::new(source, &problem.at, &problem.label, AnnotationKind::Primary);
    let second = problem
        .other
        .as_ref()
        .map(|(at, label)| Underline::new(source, at, label, AnnotationKind::Context));
    group = match second {
        Some(second) if second.line == first.line => {
            first.add_to(group, source, Some(second.annotation()))
        }
        Some(second) => second.add_to(first.add_to(group, source, None), source, None),
        None => first.add_to(group, source, None),
    };
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.message(printable(hint)));
    }
    let renderer = if colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let drawn = renderer.render(&[group]);
    let lines: Vec<&str> = drawn.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// A marked place. Only its first line is shown: all lines of a list over 1,000 lines would not explain more.
struct Underline {
    line: Range<usize>,
    at: Range<usize>,
    label: String,
    kind: AnnotationKind,
}

impl Underline {
    fn new(source: &SourceFile, at: &Range<usize>, label: &str, kind: AnnotationKind) -> Underline {
        let at = source.clamp(at.clone());
        let line = source.line(at.start);
        let start = at.start.clamp(line.start, line.end);
        Underline {
            at: start..at.end.clamp(start, line.end),
            line,
            label: printable(label),
            kind,
        }
    }

    fn annotation<'a>(&self) -> Annotation<'a> {
        let span = self.at.start - self.line.start..self.at.end - self.line.start;
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        self.kind.span(span).label(label)
    }

    fn add_to<'a>(
        &self,
        group: Group<'a>,
        source: &'a SourceFile,
        more: Option<Annotation<'a>>,
    ) -> Group<'a> {
        let position = source.position(self.at.start);
        if self.line.len() > LINE_BYTES_SHOWN_MAX {
            let origin = Origin::path(source.name().to_owned());
            return group.element(origin.line(position.line).char_column(position.column));
        }
        group.element(
            Snippet::source(harmless(&source.text()[self.line.clone()]))
                .path(source.name().to_owned())
                .line_start(position.line)
                .annotation(self.annotation())
                .annotations(more),
        )
    }
}

/// Replaces every character of a line that would control a terminal by as many other bytes, so that the caret stays
/// in place. The library draws tabs.
fn harmless(line: &str) -> String {
    line.chars()
        .map(|char| match char.len_utf8() {
            _ if !is_unprintable(char) || char == '\t' => char,
            1 => '?',
            2 => '·',
            _ => '\u{fffd}',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn drawn(text: &str, problem: Problem) -> String {
        draw(
            &SourceFile::new(Path::new("dir/\x1bu.toml"), text),
            &problem,
            false,
        )
    }

    /// No contents of a file make a control character reach the terminal.
    #[test]
    fn no_control_character_gets_through() {
        let text = "a = \"\x1b[31m\u{9b}\u{202e}\t\"\r\nb = \x07";
        let problem = Problem::error(4..16, text)
            .label(text)
            .hint(text)
            .and_at(17..22, text);
        let drawn = drawn(text, problem);
        let bad: Vec<char> = drawn
            .chars()
            .filter(|char| is_unprintable(*char) && *char != '\n')
            .collect();
        assert!(bad.is_empty(), "{bad:?} in {drawn}");
    }

    /// The caret is under the exact value, also after wide and multi-byte characters.
    #[test]
    fn two_places_are_both_shown() {
        let problem = Problem::error(8..9, "twice")
            .label("again")
            .and_at(0..1, "first here");
        let drawn = drawn("a = 1\r\nxa = 2", problem);
        assert!(drawn.contains("2 | xa = 2\n  |  ^ again"), "{drawn}");
        assert!(drawn.contains("1 | a = 1\n  | - first here"), "{drawn}");
    }

    /// Every byte range is drawn without a panic, even one that does not exist or that splits a character.
    #[test]
    fn every_place_can_be_drawn() {
        for text in ["", "\n", "\u{feff}ä\r\n", "ääää\n\u{9b}", "\r\r\n"] {
            for start in 0..12 {
                for end in 0..12 {
                    let problem = Problem::error(start..end, "bad").and_at(end..start, "other");
                    assert!(drawn(text, problem).contains("u.toml:"));
                }
            }
        }
    }

    /// A very long line is referred to by its number and not printed.
    #[test]
    fn a_long_line_is_only_named() {
        let drawn = drawn(
            &"x".repeat(1_000_000),
            Problem::error(500_000..500_001, "bad"),
        );
        assert!(drawn.contains("u.toml:1:500001"), "{drawn}");
        assert!(drawn.len() < 1_000);
    }
}
