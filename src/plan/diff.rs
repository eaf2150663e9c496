//! Compares two configurations, in words for people and in numbers for the handover. Each row of the old
//! configuration continues as a row of the new one, or is gone.

use std::collections::HashMap;
use std::hash::Hash;

use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::route_table::RouteId;
use crate::number;
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
        let words = ["listener", "route", "handler"].map(|what| match count(what) {
            1 => format!("1 {what}"),
            many => format!("{many} {what}s"),
        });
        format!("{}, {} and {} unchanged", words[0], words[1], words[2])
    }
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}

/// The row of the new configuration that each row of the old one continues as; `None` if the row is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMap {
    /// The new listener of each old listener.
    pub listeners: Vec<Option<usize>>,
    /// The new route of each old route.
    pub routes: Vec<Option<RouteId>>,
    /// What replaces each old handler.
    pub handlers: Vec<HandlerMap>,
    /// The new number of each old upstream, whose counters continue under it.
    pub upstreams: Vec<Option<usize>>,
    /// The number of each new handler's first upstream.
    pub firsts: Vec<usize>,
}

/// The handlers that take over the state of an old handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerMap {
    /// The handler with the same name and kind.
    pub replacement: Option<HandlerId>,
    /// Whether the replacement also takes the sessions: it keeps sessions, or the old handler had none.
    pub is_like: bool,
    /// The replacement's place for each of the old handler's upstreams; `None` if it does not have that upstream.
    pub places: Vec<Option<u16>>,
    /// A copy of the old handler without routes, for sessions whose upstream the replacement does not have.
    pub retired: Option<HandlerId>,
}

impl HandlerMap {
    /// Returns the new handler whose row continues the old handler's counters.
    pub fn row(&self) -> Option<HandlerId> {
        self.replacement.or(self.retired)
    }
}

impl RowMap {
    /// Maps the rows of `old` to those of `new`. `retired` maps the number of an old handler to the number of its
    /// retired copy among the new handlers.
    pub fn new(old: &Identity, new: &Identity, retired: &HashMap<usize, usize>) -> RowMap {
        let handlers: Vec<HandlerMap> = (0..old.handlers.len())
            .map(|handler| handler_map(old, new, retired, handler))
            .collect();
        let mut upstreams = Vec::new();
        for (index, handler_map) in handlers.iter().enumerate() {
            for place in 0..old.handlers[index].upstreams.len() {
                let at_replacement = handler_map.replacement.zip(handler_map.places[place]);
                let at_replacement = at_replacement.map(|(replacement, place)| {
                    new.upstream(replacement.index(), usize::from(place))
                });
                let at_retired = handler_map
                    .retired
                    .map(|retired| new.upstream(retired.index(), place));
                upstreams.push(at_replacement.or(at_retired));
            }
        }
        RowMap {
            listeners: matches(
                old.listeners.iter().map(|listener| &listener.key),
                new.listeners.iter().map(|listener| &listener.key),
            ),
            routes: matches(
                old.routes.iter().map(|route| &route.label),
                new.routes.iter().map(|route| &route.label),
            )
            .into_iter()
            .map(|route| route.map(RouteId::new))
            .collect(),
            handlers,
            upstreams,
            firsts: (0..new.handlers.len())
                .map(|handler| new.upstream(handler, 0))
                .collect(),
        }
    }

    /// Returns the number of the upstream at a place of a new handler.
    ///
    /// # Panics
    ///
    /// Panics if there is no new handler with this number.
    pub fn upstream(&self, handler: HandlerId, place: u16) -> UpstreamId {
        UpstreamId::new(self.firsts[handler.index()] + usize::from(place))
    }
}

fn handler_map(
    old: &Identity,
    new: &Identity,
    retired: &HashMap<usize, usize>,
    index: usize,
) -> HandlerMap {
    let handler = &old.handlers[index];
    let retired = retired.get(&index).map(|retired| HandlerId::new(*retired));
    let is_replacement = |other: &crate::plan::identity::HandlerIdentity| {
        !handler.is_retired
            && !other.is_retired
            && other.name == handler.name
            && other.kind == handler.kind
    };
    let replacement = new.handlers.iter().position(is_replacement);
    let places = match replacement {
        Some(replacement) => matches(
            handler.upstreams.iter(),
            new.handlers[replacement].upstreams.iter(),
        ),
        None => vec![None; handler.upstreams.len()],
    };
    let places = places
        .into_iter()
        .map(|place| place.map(number::to_u16))
        .collect();
    let is_like = replacement
        .is_some_and(|replacement| new.handlers[replacement].has_sessions || !handler.has_sessions);
    HandlerMap {
        replacement: replacement.map(HandlerId::new),
        is_like,
        places,
        retired,
    }
}

/// Maps each old row to the index of an equal new row. Duplicates are paired in order.
fn matches<'a, T: Hash + Eq + 'a>(
    old: impl Iterator<Item = &'a T>,
    new: impl Iterator<Item = &'a T>,
) -> Vec<Option<usize>> {
    let mut places: HashMap<&T, Vec<usize>> = HashMap::new();
    for (index, key) in new.enumerate() {
        places.entry(key).or_default().push(index);
    }
    places.values_mut().for_each(|places| places.reverse());
    old.map(|key| places.get_mut(key)?.pop()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::identity::{HandlerIdentity, RouteIdentity};

    fn identity(routes: &[(&str, &str)], handlers: &[(&str, &str, &[&str])]) -> Identity {
        let route = |(label, text): &(&str, &str)| RouteIdentity {
            label: (*label).into(),
            text: (*text).into(),
        };
        let handler = |(name, text, upstreams): &(&str, &str, &[&str])| HandlerIdentity {
            name: (*name).into(),
            kind: "forward".into(),
            text: (*text).into(),
            upstreams: upstreams
                .iter()
                .map(|upstream| (*upstream).into())
                .collect(),
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
            &[("h", "x = 1\ny = 2", &[]), ("i", "x = 1", &[])],
        );
        let new = identity(
            &[("b", "1"), ("c", "1")],
            &[("h", "x = 2", &[]), ("i", "x = 1", &[])],
        );
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

    /// Upstreams are matched by their text and not by their place, also if one is present twice.
    #[test]
    fn places() {
        let old = identity(&[], &[("g", "", &["z"]), ("h", "", &["a", "b", "a", "c"])]);
        let new = identity(
            &[],
            &[
                ("h", "", &["b", "a", "d", "a"]),
                ("h (retired)", "", &["a", "b", "a", "c"]),
            ],
        );
        let row_map = RowMap::new(&old, &new, &HashMap::from([(1, 1)]));
        let handler_map = &row_map.handlers[1];
        assert_eq!(
            (handler_map.replacement, handler_map.retired),
            (Some(HandlerId(0)), Some(HandlerId(1)))
        );
        assert_eq!(handler_map.places, [Some(1), Some(0), Some(3), None]);
        assert_eq!(row_map.handlers[0].row(), None);
        assert_eq!(
            row_map.upstreams,
            [None, Some(1), Some(0), Some(3), Some(7)]
        );
    }
}
