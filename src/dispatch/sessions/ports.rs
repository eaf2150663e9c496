//! The upstream sockets of ended sessions, kept for the next ones. A socket is a source port, and what the upstream sends
//! there late must not reach the next client: so a port is in quarantine before it is leased again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::Time;

/// Quarantine after a session whose requests were all answered: only a repeated answer can still come.
pub const QUARANTINE: Duration = Duration::from_secs(2);
/// The shortest such quarantine, where no further port can be had. Many times a turn of the loop, so that what came before the
/// lease has been read before it.
pub const QUARANTINE_MIN: Duration = Duration::from_millis(100);
/// Quarantine, from its last datagram on, after a session that is owed answers. Twice the patience that sessions get for their
/// first answer.
pub const QUARANTINE_OUTSTANDING: Duration = Duration::from_secs(10);
/// A port that nobody leased for so long is given back to the system.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// Time until opening is tried again after it failed: with no port free, each try costs the kernel a search through all.
pub const RETRY: Duration = Duration::from_secs(1);
/// The same where there is no way to the upstream, which costs the kernel next to nothing to say.
pub const RETRY_WAY: Duration = Duration::from_millis(100);

/// The free ports of one upstream in one worker.
#[derive(Debug, Default)]
pub struct FreePorts {
    /// Out of quarantine; the one released last is leased first, so that those that are not needed show.
    reusable: VecDeque<ReleasedPort>,
    /// Of sessions that got all their answers, in the order of their release.
    replied: VecDeque<ReleasedPort>,
    /// Of sessions that are owed some, in the order of their release.
    outstanding: VecDeque<ReleasedPort>,
    /// No opening before this.
    shut_until: Time,
}

#[derive(Debug, Clone, Copy)]
struct ReleasedPort {
    socket: UpstreamSocketId,
    until: Time,
    released: Time,
}

/// What there is for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// A port that has left quarantine.
    Reusable(UpstreamSocketId),
    /// None, but one may be opened.
    Open,
    /// None.
    Nothing,
}

impl FreePorts {
    /// Takes a port for a new session.
    pub fn lease(&mut self, now: Time) -> Lease {
        self.settle(now);
        if let Some(port) = self.reusable.pop_back() {
            return Lease::Reusable(port.socket);
        }
        if now >= self.shut_until {
            return Lease::Open;
        }
        match self.replied.front() {
            Some(first) if now.since(first.released) >= QUARANTINE_MIN => {
                let first = self.replied.pop_front();
                first.map_or(Lease::Nothing, |first| Lease::Reusable(first.socket))
            }
            _ => Lease::Nothing,
        }
    }

    /// Opening a port failed, and is to be tried again after a while. Asks anew what there is.
    pub fn failed(&mut self, now: Time, retry: Duration) -> Lease {
        self.shut_until = now.after(retry);
        self.lease(now)
    }

    /// A session has ended. `seen` is when its last datagram passed, `has_outstanding` whether a request that it sent
    /// from this port has no answer.
    pub fn release(
        &mut self,
        socket: UpstreamSocketId,
        now: Time,
        seen: Time,
        has_outstanding: bool,
    ) {
        let until = if has_outstanding {
            seen.after(QUARANTINE_OUTSTANDING)
        } else {
            seen.after(QUARANTINE)
        };
        self.restore(socket, until, now, has_outstanding, now);
    }

    /// A port that has been free too long, to be closed; call until there is none.
    pub fn take_idle(&mut self, now: Time) -> Option<UpstreamSocketId> {
        self.settle(now);
        let is_idle = |port: &ReleasedPort| now.since(port.released) >= IDLE_MAX;
        let idle = self
            .reusable
            .front()
            .is_some_and(is_idle)
            .then(|| self.reusable.pop_front())?;
        idle.map(|port| port.socket)
    }

    /// All free ports, to be closed: they lead to where the upstream is no more.
    pub fn clear(&mut self) -> impl Iterator<Item = UpstreamSocketId> {
        let (reusable, replied, outstanding) =
            (&mut self.reusable, &mut self.replied, &mut self.outstanding);
        reusable
            .drain(..)
            .chain(replied.drain(..))
            .chain(outstanding.drain(..))
            .map(|port| port.socket)
    }

    /// All that are free, to be handed over: socket, until when it is in quarantine, when it was released, whether it is owed answers.
    pub fn iter(&self) -> impl Iterator<Item = (UpstreamSocketId, Time, Time, bool)> {
        let all = [
            (&self.reusable, false),
            (&self.replied, false),
            (&self.outstanding, true),
        ];
        let each = |port: &ReleasedPort, has_outstanding| {
            (port.socket, port.until, port.released, has_outstanding)
        };
        all.into_iter().flat_map(move |(queue, has_outstanding)| {
            queue.iter().map(move |port| each(port, has_outstanding))
        })
    }

    /// Goes on with one that another has left; those of one sort in the order of their release.
    pub fn restore(
        &mut self,
        socket: UpstreamSocketId,
        until: Time,
        released: Time,
        has_outstanding: bool,
        now: Time,
    ) {
        let port = ReleasedPort {
            socket,
            until,
            released,
        };
        match (until <= now, has_outstanding) {
            (true, _) => self.reusable.push_back(port),
            (false, true) => self.outstanding.push_back(port),
            (false, false) => self.replied.push_back(port),
        }
    }

    /// How many are free, in quarantine or not.
    pub fn len(&self) -> usize {
        self.reusable.len() + self.replied.len() + self.outstanding.len()
    }

    /// Whether none is free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn settle(&mut self, now: Time) {
        for queue in [&mut self.replied, &mut self.outstanding] {
            while queue.front().is_some_and(|first| first.until <= now) {
                self.reusable.extend(queue.pop_front());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    /// A port is longer in quarantine when it is owed answers, and only the shortest quarantine is ever cut.
    #[test]
    fn quarantine() {
        let mut ports = FreePorts::default();
        assert_eq!(ports.lease(ms(0)), Lease::Open);
        ports.release(UpstreamSocketId(1), ms(1_000), ms(1_000), false);
        ports.release(UpstreamSocketId(2), ms(1_000), ms(1_000), true);
        assert_eq!(
            ports.lease(ms(2_999)),
            Lease::Open,
            "a new one is better than one that has not rested"
        );
        assert_eq!(
            ports.failed(ms(1_050), RETRY),
            Lease::Nothing,
            "not even for want of ports"
        );
        assert_eq!(
            ports.failed(ms(1_100), RETRY),
            Lease::Reusable(UpstreamSocketId(1))
        );
        assert_eq!(ports.failed(ms(9_000), RETRY), Lease::Nothing);
        assert_eq!(
            ports.lease(ms(9_999)),
            Lease::Nothing,
            "no search for a port so soon"
        );
        assert_eq!(ports.lease(ms(10_000)), Lease::Open);
        assert_eq!(
            ports.lease(ms(11_000)),
            Lease::Reusable(UpstreamSocketId(2))
        );
    }

    /// A session that was silent for long has left quarantine already; ports that nobody needs are closed, the oldest first.
    #[test]
    fn idle_ports() {
        let mut ports = FreePorts::default();
        (0..3).for_each(|socket| {
            ports.release(
                UpstreamSocketId(socket),
                ms(60_000 + u64::from(socket)),
                ms(0),
                true,
            )
        });
        assert_eq!(
            ports.lease(ms(60_003)),
            Lease::Reusable(UpstreamSocketId(2))
        );
        assert_eq!(ports.take_idle(ms(89_999)), None);
        assert_eq!(ports.take_idle(ms(90_000)), Some(UpstreamSocketId(0)));
        assert_eq!(ports.take_idle(ms(90_000)), None);
        assert_eq!(ports.clear().collect::<Vec<_>>(), [UpstreamSocketId(1)]);
        assert!(ports.is_empty());
    }
}
