//! Maps each row of an old configuration to the row of the new one that continues it. A map is made once for each
//! list of rows. State and counters move by it, in a reload and in a takeover.

use std::collections::HashMap;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::dispatch::id::{HandlerId, ListenerId, RouteId, UpstreamId};
use crate::number;
use crate::plan::identity::{HandlerIdentity, Identity};

/// The number of a row: its place in its list.
pub trait RowId: Copy {
    /// Returns the number of the row at this place of its list.
    fn at(index: usize) -> Self;

    /// Returns the place of the row in its list.
    fn place(self) -> usize;
}

macro_rules! row_ids {
    ($($id:ident),+) => {
        $(impl RowId for $id {
            fn at(index: usize) -> $id {
                $id::new(index)
            }

            fn place(self) -> usize {
                self.index()
            }
        })+
    };
}

row_ids!(ListenerId, RouteId, HandlerId, UpstreamId);

/// The place of an upstream in its handler's list.
impl RowId for u16 {
    fn at(index: usize) -> u16 {
        number::to_u16(index)
    }

    fn place(self) -> usize {
        usize::from(self)
    }
}

/// Maps each row of an old list to what continues it in the new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMap<Old, New = Old> {
    new: Vec<Option<New>>,
    old: PhantomData<Old>,
}

impl<Old: RowId, New> RowMap<Old, New> {
    /// Makes a map of what continues each old row, in the order of the old rows; `None` for a row that is gone.
    pub fn new(new: Vec<Option<New>>) -> RowMap<Old, New> {
        RowMap {
            new,
            old: PhantomData,
        }
    }

    /// Returns what continues an old row; `None` if the row is gone or the old list does not have it.
    pub fn get(&self, old: Old) -> Option<&New> {
        self.new.get(old.place())?.as_ref()
    }

    /// Returns whether every old row continues.
    pub fn is_total(&self) -> bool {
        self.new.iter().all(Option::is_some)
    }

    /// Returns what continues each old row, in the order of the old rows.
    #[cfg(any(test, feature = "internals"))]
    pub fn iter(&self) -> impl Iterator<Item = Option<&New>> {
        self.new.iter().map(Option::as_ref)
    }

    /// Returns the old rows that are gone.
    pub fn gone(&self) -> impl Iterator<Item = Old> {
        let rows = self.new.iter().enumerate();
        rows.filter(|(_, new)| new.is_none())
            .map(|(old, _)| Old::at(old))
    }
}

impl<Old: RowId, New: RowId> RowMap<Old, New> {
    /// Maps each old row to the new row with the same key. Rows with one key are paired in their order.
    pub fn matching<'a, T: Hash + Eq + 'a>(
        old: impl Iterator<Item = &'a T>,
        new: impl Iterator<Item = &'a T>,
    ) -> RowMap<Old, New> {
        let mut rows: HashMap<&T, Vec<usize>> = HashMap::new();
        for (index, key) in new.enumerate() {
            rows.entry(key).or_default().push(index);
        }
        rows.values_mut().for_each(|rows| rows.reverse());
        let row = |key| rows.get_mut(key)?.pop().map(New::at);
        RowMap::new(old.map(row).collect())
    }

    /// Moves the values of the old rows to the `rows` rows of the new list. A row that continues none gets `None`.
    ///
    /// # Panics
    ///
    /// Panics if an old row continues as a row after the first `rows`.
    pub fn carry<T>(&self, values: Vec<T>, rows: usize) -> Vec<Option<T>> {
        let mut carried: Vec<Option<T>> = (0..rows).map(|_| None).collect();
        for (new, value) in self.new.iter().zip(values) {
            if let Some(new) = new {
                carried[new.place()] = Some(value);
            }
        }
        carried
    }
}

/// The handlers that continue an old handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerMap {
    /// The handler with the same name and kind.
    pub replacement: Option<HandlerId>,
    /// Whether the replacement also takes the sessions: it keeps sessions, or the old handler had none.
    pub takes_sessions: bool,
    /// The replacement's place for each of the old handler's upstreams.
    pub places: RowMap<u16>,
    /// A copy of the old handler without routes, for sessions whose upstream the replacement does not have.
    pub retired: Option<HandlerId>,
}

/// The handler that a session moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionTarget {
    /// The handler that replaces the old one.
    Replacement(HandlerId),
    /// The copy of the old handler without routes.
    Retired(HandlerId),
}

impl SessionTarget {
    /// Returns the number of the handler.
    pub fn handler(self) -> HandlerId {
        match self {
            SessionTarget::Replacement(handler) | SessionTarget::Retired(handler) => handler,
        }
    }
}

impl HandlerMap {
    /// Maps an old handler to the one of `new` that replaces it. No handler is retired yet.
    pub fn new(old: &HandlerIdentity, new: &[HandlerIdentity]) -> HandlerMap {
        let replacement = new.iter().position(|new| is_replacement(old, new));
        let upstreams = replacement.map_or(&[][..], |at| &new[at].upstreams);
        HandlerMap {
            replacement: replacement.map(HandlerId::new),
            takes_sessions: replacement.is_some_and(|at| new[at].has_sessions || !old.has_sessions),
            places: RowMap::matching(old.upstreams.iter(), upstreams.iter()),
            retired: None,
        }
    }

    /// Returns the map; `None` if the old handler is gone.
    fn continued(self) -> Option<HandlerMap> {
        self.row().is_some().then_some(self)
    }

    /// Returns whether the replacement can take every session.
    pub fn takes_every_session(&self) -> bool {
        self.takes_sessions && self.places.is_total()
    }

    /// Returns the new handler whose row continues the old handler's counters; `None` if the old handler is gone.
    pub fn row(&self) -> Option<HandlerId> {
        self.replacement.or(self.retired)
    }

    /// Returns the handler that takes a session with upstreams at these places of the old handler; `None` if none
    /// does, so that the session ends.
    pub fn target(&self, mut places: impl Iterator<Item = u16>) -> Option<SessionTarget> {
        let fits = self.takes_sessions && places.all(|place| self.places.get(place).is_some());
        let replacement = self.replacement.filter(|_| fits);
        replacement
            .map(SessionTarget::Replacement)
            .or(self.retired.map(SessionTarget::Retired))
    }

    /// Returns the place at the target for a place of the old handler.
    pub fn place(&self, target: SessionTarget, old: u16) -> Option<u16> {
        match target {
            SessionTarget::Replacement(_) => self.places.get(old).copied(),
            SessionTarget::Retired(_) => {
                Some(old).filter(|old| old.place() < self.places.new.len())
            }
        }
    }
}

fn is_replacement(old: &HandlerIdentity, new: &HandlerIdentity) -> bool {
    !old.is_retired && !new.is_retired && old.name == new.name && old.kind == new.kind
}

/// The maps of all rows of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMaps {
    /// The listeners.
    pub listeners: RowMap<ListenerId>,
    /// The routes.
    pub routes: RowMap<RouteId>,
    /// The handlers.
    pub handlers: RowMap<HandlerId, HandlerMap>,
    /// The upstreams, with their counters and their monitored states.
    pub upstreams: RowMap<UpstreamId>,
    /// The number of each new handler's first upstream.
    firsts: Vec<UpstreamId>,
}

impl RowMaps {
    /// Maps the rows of `old` to those of `new`. `handlers` has the map of each old handler.
    ///
    /// # Panics
    ///
    /// Panics if `handlers` has fewer maps than `old` has handlers.
    pub fn new(old: &Identity, new: &Identity, handlers: Vec<HandlerMap>) -> RowMaps {
        let first = |handler| UpstreamId::new(new.upstream(handler, 0));
        let firsts: Vec<UpstreamId> = (0..new.handlers.len()).map(first).collect();
        let mut upstreams = Vec::new();
        for (handler, map) in old.handlers.iter().zip(&handlers) {
            for place in 0..handler.upstreams.len() {
                let at_replacement = map.replacement.zip(map.places.get(number::to_u16(place)));
                let at = at_replacement.map(|(handler, place)| (handler, usize::from(*place)));
                let at = at.or(map.retired.map(|retired| (retired, place)));
                upstreams.push(at.map(|(handler, place)| {
                    UpstreamId::new(firsts[handler.index()].index() + place)
                }));
            }
        }
        RowMaps {
            listeners: RowMap::matching(
                old.listeners.iter().map(|listener| &listener.key),
                new.listeners.iter().map(|listener| &listener.key),
            ),
            routes: RowMap::matching(
                old.routes.iter().map(|route| &route.label),
                new.routes.iter().map(|route| &route.label),
            ),
            handlers: RowMap::new(handlers.into_iter().map(HandlerMap::continued).collect()),
            upstreams: RowMap::new(upstreams),
            firsts,
        }
    }

    /// Returns the number of the upstream at a place of a new handler.
    ///
    /// # Panics
    ///
    /// Panics if there is no new handler with this number.
    pub fn upstream(&self, handler: HandlerId, place: u16) -> UpstreamId {
        UpstreamId::new(self.firsts[handler.index()].index() + usize::from(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(handlers: &[(&str, &[&str])]) -> Identity {
        let handler = |(name, upstreams): &(&str, &[&str])| HandlerIdentity {
            name: (*name).into(),
            kind: "forward".into(),
            text: String::new(),
            upstreams: upstreams.iter().map(ToString::to_string).collect(),
            has_sessions: true,
            is_retired: name.contains("retired"),
        };
        Identity {
            listeners: Vec::new(),
            routes: Vec::new(),
            handlers: handlers.iter().map(handler).collect(),
        }
    }

    /// The maps from an old configuration to a new one without and with a retired copy of the old handler `h`.
    fn maps() -> RowMaps {
        let old = identity(&[("g", &["z"]), ("h", &["a", "b", "a", "c"])]);
        let mut new = identity(&[("h", &["b", "a", "d", "a"])]);
        let mut handlers: Vec<HandlerMap> = old
            .handlers
            .iter()
            .map(|old| HandlerMap::new(old, &new.handlers))
            .collect();
        let retired = identity(&[("h (retired)", &["a", "b", "a", "c"])]);
        new.handlers.extend(retired.handlers);
        handlers[1].retired = Some(HandlerId::new(1));
        RowMaps::new(&old, &new, handlers)
    }

    /// Upstreams are matched by their text and not by their place, also if one is present twice.
    #[test]
    fn places() {
        let maps = maps();
        assert_eq!(maps.handlers.get(HandlerId::new(0)), None);
        let map = maps.handlers.get(HandlerId::new(1)).expect("it continues");
        assert_eq!(map.replacement, Some(HandlerId::new(0)));
        assert_eq!(map.places.new, [Some(1), Some(0), Some(3), None]);
        assert!(!map.takes_every_session());
        let upstreams = [None, Some(1), Some(0), Some(3), Some(7)];
        assert_eq!(
            maps.upstreams.new,
            upstreams.map(|new| new.map(UpstreamId::new))
        );
        assert_eq!(
            maps.upstreams.gone().collect::<Vec<_>>(),
            [UpstreamId::new(0)]
        );
    }

    /// A session moves to the replacement if that has all of its upstreams, or else to the retired handler, where its
    /// upstreams have their old places.
    #[test]
    fn sessions_follow_their_upstreams() {
        let maps = maps();
        let map = maps.handlers.get(HandlerId::new(1)).expect("it continues");
        let replacement = SessionTarget::Replacement(HandlerId::new(0));
        let retired = SessionTarget::Retired(HandlerId::new(1));
        assert_eq!(map.target([0, 2].into_iter()), Some(replacement));
        assert_eq!(map.target([0, 3].into_iter()), Some(retired));
        assert_eq!(map.place(replacement, 0), Some(1));
        assert_eq!(map.place(retired, 3), Some(3));
        assert_eq!(map.place(retired, 4), None, "the handler has no such place");
        assert_eq!(maps.upstream(HandlerId::new(1), 3), UpstreamId::new(7));
    }

    /// Each value moves to the row that continues its old row.
    #[test]
    fn values_are_carried() {
        let map = RowMap::<u16>::new(vec![Some(2), None, Some(0)]);
        let carried = map.carry(vec!["a", "b", "c"], 4);
        assert_eq!(carried, [Some("c"), None, Some("a"), None]);
    }
}
