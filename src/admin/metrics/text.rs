//! Writes the text format of Prometheus (exposition formats, version 0.0.4): families in order, each with its help and type
//! before its samples. Small enough to need no library, whose registries keep numbers of their own; ours are in the snapshot.

use std::fmt::{Display, Write};

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making.
#[derive(Debug, Default)]
pub struct Text(String);

/// The samples of one family in the making.
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Text {
    /// Begins a family. Its name comes without the prefix `udispatch_`.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP udispatch_{name} {help}\n# TYPE udispatch_{name} {kind}");
        Family { text: self, name }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// A sample. Each set of labels comes once in a family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.text.0;
        let _ = write!(text, "udispatch_{}", self.name);
        for (place, (label, content)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{label}=\"", if place == 0 { '{' } else { ',' });
            escape(text, content);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

fn escape(text: &mut String, content: &str) {
    for character in content.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help and type come before the samples, and no label can end its own quotes.
    #[test]
    fn the_format() {
        let mut text = Text::default();
        let mut family = text.family("things_total", Kind::Counter, "Things.");
        family.sample(&[], 1);
        family.sample(&[("a", "x\"y\\z\n"), ("b", "")], 2_u64);
        let expected = "# HELP udispatch_things_total Things.\n# TYPE udispatch_things_total counter\n\
                        udispatch_things_total 1\nudispatch_things_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 2\n";
        assert_eq!(text.finish(), expected);
    }
}
