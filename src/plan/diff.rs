//! Compares two configurations, in words for people.

use std::collections::HashMap;

use crate::config::diagnostics::counted;
use crate::plan::identity::Identity;

/// What the new configuration does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowChange {
    Added,
    Removed,
    Changed,
    Kept,
}

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DiffLine {
    what: &'static str,
    name: String,
    change: RowChange,
    /// The old and the new text of a changed row.
    texts: Option<(String, String)>,
}

/// The differences between two configurations, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    lines: Vec<DiffLine>,
}

impl Diff {
    /// Compares the running configuration with another one. Retired handlers are ignored.
    pub fn new(old: &Identity, new: &Identity) -> Diff {
        let mut diff = Diff::default();
        diff.compare(
            "listener",
            old.listeners
                .iter()
                .map(|listener| (listener.label.as_str(), "")),
            new.listeners
                .iter()
                .map(|listener| (listener.label.as_str(), "")),
        );
        diff.compare(
            "route",
            old.routes
                .iter()
                .map(|route| (route.label.as_str(), route.text.as_str())),
            new.routes
                .iter()
                .map(|route| (route.label.as_str(), route.text.as_str())),
        );
        let named = |identity: &'_ Identity| {
            let current = identity
                .handlers
                .iter()
                .filter(|handler| !handler.is_retired);
            current
                .map(|handler| (handler.name.clone(), handler.text.clone()))
                .collect::<Vec<_>>()
        };
        let (old, new) = (named(old), named(new));
        diff.compare(
            "handler",
            old.iter()
                .map(|(name, text)| (name.as_str(), text.as_str())),
            new.iter()
                .map(|(name, text)| (name.as_str(), text.as_str())),
        );
        diff
    }

    fn compare<'a>(
        &mut self,
        what: &'static str,
        old: impl Iterator<Item = (&'a str, &'a str)>,
        new: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let old: Vec<_> = old.collect();
        let before: HashMap<&str, &str> = old.iter().copied().collect();
        let new: Vec<_> = new.collect();
        let after: HashMap<&str, &str> = new.iter().copied().collect();
        for (name, _) in old.iter().filter(|(name, _)| !after.contains_key(name)) {
            self.lines.push(DiffLine {
                what,
                name: (*name).to_owned(),
                change: RowChange::Removed,
                texts: None,
            });
        }
        for (name, text) in new {
            let (change, texts) = match before.get(name) {
                None => (RowChange::Added, None),
                Some(same) if *same == text => (RowChange::Kept, None),
                Some(other) => (
                    RowChange::Changed,
                    Some(((*other).to_owned(), text.to_owned())),
                ),
            };
            self.lines.push(DiffLine {
                what,
                name: name.to_owned(),
                change,
                texts,
            });
        }
    }

    /// Returns whether every row is kept.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.change == RowChange::Kept)
    }

    /// Returns one line for each row that is added (`+`), removed (`-`) or changed (`~`), and one that counts the
    /// kept rows (`=`).
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self
            .lines
            .iter()
            .filter(|line| line.change != RowChange::Kept)
        {
            let sign = match line.change {
                RowChange::Added => '+',
                RowChange::Removed => '-',
                RowChange::Changed | RowChange::Kept => '~',
            };
            lines.push(format!("{sign} {} {}", line.what, line.name));
            if let Some((was, is)) = &line.texts {
                lines.push(format!("    was: {}", one_line(was)));
                lines.push(format!("    is:  {}", one_line(is)));
            }
        }
        lines.push(format!("= {}", self.kept()));
        lines
    }

    /// Returns the number of kept rows of each type, in words.
    fn kept(&self) -> String {
        let count = |what| {
            self.lines
                .iter()
                .filter(|line| line.what == what && line.change == RowChange::Kept)
                .count()
        };
        let words = ["listener", "route", "handler"].map(|what| counted(count(what), what));
        format!("{}, {} and {} unchanged", words[0], words[1], words[2])
    }
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::identity::{HandlerIdentity, RouteIdentity};

    fn identity(routes: &[(&str, &str)], handlers: &[(&str, &str)]) -> Identity {
        let route = |(label, text): &(&str, &str)| RouteIdentity {
            label: (*label).into(),
            text: (*text).into(),
        };
        let handler = |(name, text): &(&str, &str)| HandlerIdentity {
            name: (*name).into(),
            kind: "forward".into(),
            text: (*text).into(),
            upstreams: Vec::new(),
            has_sessions: true,
            is_retired: false,
        };
        Identity {
            listeners: Vec::new(),
            routes: routes.iter().map(route).collect(),
            handlers: handlers.iter().map(handler).collect(),
        }
    }

    /// Every row is reported once, with its old and new text if it changed.
    #[test]
    fn in_words() {
        let old = identity(
            &[("a", "1"), ("b", "1")],
            &[("h", "x = 1\ny = 2"), ("i", "x = 1")],
        );
        let new = identity(&[("b", "1"), ("c", "1")], &[("h", "x = 2"), ("i", "x = 1")]);
        let lines = Diff::new(&old, &new).lines();
        let expected = [
            "- route a",
            "+ route c",
            "~ handler h",
            "    was: x = 1, y = 2",
            "    is:  x = 2",
            "= 0 listeners, 1 route and 1 handler unchanged",
        ];
        assert_eq!(lines, expected);
        assert!(Diff::new(&old, &old).is_empty() && !Diff::new(&old, &new).is_empty());
    }
}
