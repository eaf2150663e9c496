//! The spread of one client's datagrams over the upstreams, and the sockets that a session has for it.

use super::config::{Choice, Settings, Spread};

/// The upstreams that the datagrams of one client go to. The shadows get copies in any case.
///
/// A session has an array of sockets, its legs. The fanout decides which upstream each leg leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fanout {
    /// One upstream, which is picked when the session begins. The first leg leads to it, and the legs of the shadows
    /// follow.
    PerSession,
    /// One upstream, which is picked for each datagram. Each upstream has the leg with its own index.
    PerDatagram,
    /// All upstreams. Each upstream has the leg with its own index.
    All,
}

impl Fanout {
    /// Derives the fanout from the settings `pick` and `spread`.
    pub fn of(settings: &Settings) -> Fanout {
        match (settings.choice, settings.spread) {
            (Choice::One(_), Spread::Session) => Fanout::PerSession,
            (Choice::One(_), Spread::Datagram) => Fanout::PerDatagram,
            (Choice::All, _) => Fanout::All,
        }
    }

    /// Returns the number of legs of a session. `upstreams` is the number of upstreams, of which `shadows` are shadows.
    pub fn legs(self, upstreams: usize, shadows: usize) -> usize {
        self.first_shadow_leg()
            .map_or(upstreams, |first| first + shadows)
    }

    /// Returns the leg to the first shadow, if the legs to the shadows are consecutive. `None` if each upstream has the
    /// leg with its own index.
    pub fn first_shadow_leg(self) -> Option<usize> {
        (self == Fanout::PerSession).then_some(1)
    }

    /// Returns the leg to the upstream at `place`. `shadows` are the places of the shadows.
    pub fn leg_of(self, place: usize, shadows: &[usize]) -> usize {
        let Some(first) = self.first_shadow_leg() else {
            return place;
        };
        let shadow = shadows.iter().position(|shadow| *shadow == place);
        shadow.map_or(0, |at| first + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one pick a session, every upstream but the shadows shares the first leg. Otherwise each has its own.
    #[test]
    fn legs_of_upstreams() {
        let shadows = [1, 3];
        let legs = |fanout: Fanout| [0, 1, 2, 3].map(|place| fanout.leg_of(place, &shadows));
        assert_eq!(legs(Fanout::PerSession), [0, 1, 0, 2]);
        assert_eq!(Fanout::PerSession.legs(4, shadows.len()), 3);
        for fanout in [Fanout::PerDatagram, Fanout::All] {
            assert_eq!(legs(fanout), [0, 1, 2, 3]);
            assert_eq!(fanout.legs(4, shadows.len()), 4);
        }
    }
}
