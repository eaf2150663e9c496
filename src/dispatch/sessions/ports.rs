//! The upstream sockets of ended sessions, kept for new ones. A socket stands for a source port. A late reply to that
//! port must not reach the next client, so a port is in quarantine before it is leased again.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::Time;

/// The quarantine after a session whose requests were all replied to. Only a repeated reply can still arrive.
pub const QUARANTINE: Duration = Duration::from_secs(2);
/// The shortest quarantine after such a session, used if no further port is available. It is much longer than a turn
/// of the event loop, so all that arrived before the lease has been read by then.
pub const QUARANTINE_MIN: Duration = Duration::from_millis(100);
/// The quarantine after a session with outstanding replies, from its last datagram on. It is twice as long as
/// sessions wait for their first reply.
pub const QUARANTINE_OUTSTANDING: Duration = Duration::from_secs(10);
/// A port that was not leased for this time is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// The time until opening a port is tried again after no port was free. Each attempt costs the kernel a search
/// through all ports.
pub const RETRY: Duration = Duration::from_secs(1);
/// The time until opening a port is tried again after the upstream was unreachable. That report costs the kernel
/// almost nothing.
pub const RETRY_UNREACHABLE: Duration = Duration::from_millis(100);

/// The free ports of one upstream in one worker.
#[derive(Debug, Default)]
pub struct FreePorts {
    /// The ports that have left quarantine. The port released last is leased first, so that unused ports become idle
    /// and are closed.
    reusable: VecDeque<ReleasedPort>,
    /// The ports in quarantine of sessions that got all their replies, in the order of their release.
    replied: VecDeque<ReleasedPort>,
    /// The ports in quarantine of sessions with outstanding replies, in the order of their release.
    outstanding: VecDeque<ReleasedPort>,
    /// No port is opened before this time.
    open_after: Time,
}

/// A free port. A handler saves it as it is, for its replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedPort {
    /// The socket that is bound to the port.
    #[serde(rename = "lane")]
    pub socket: UpstreamSocketId,
    /// The end of the quarantine.
    pub until: Time,
    /// The time at which the session released the port.
    pub released: Time,
    /// Whether a reply is outstanding.
    #[serde(rename = "is_owed")]
    pub has_outstanding: bool,
}

/// The source port that is available for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// A port that has left quarantine.
    Reusable(UpstreamSocketId),
    /// No free port, but one may be opened.
    Open,
    /// No port at all.
    Nothing,
}

impl FreePorts {
    /// Takes a port for a new session.
    pub fn lease(&mut self, now: Time) -> Lease {
        self.settle(now);
        if let Some(port) = self.reusable.pop_back() {
            return Lease::Reusable(port.socket);
        }
        if now >= self.open_after {
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

    /// Records that opening a port failed, so that it is not tried again for the time `retry`. Returns the port that is
    /// then available.
    pub fn failed(&mut self, now: Time, retry: Duration) -> Lease {
        self.open_after = now.after(retry);
        self.lease(now)
    }

    /// Takes back the port of a session that has ended. `seen` is the time of the session's last datagram.
    /// `has_outstanding` is whether a request that was sent from this port has no reply.
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
        let port = ReleasedPort {
            socket,
            until,
            released: now,
            has_outstanding,
        };
        self.restore(port, now);
    }

    /// Removes a port that has been free too long and must be closed. The caller calls again until there is none.
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

    /// Removes all free ports, which must be closed, because the upstream has left the address that they lead to.
    pub fn clear(&mut self) -> impl Iterator<Item = UpstreamSocketId> {
        let (reusable, replied, outstanding) =
            (&mut self.reusable, &mut self.replied, &mut self.outstanding);
        reusable
            .drain(..)
            .chain(replied.drain(..))
            .chain(outstanding.drain(..))
            .map(|port| port.socket)
    }

    /// Returns all free ports.
    pub fn iter(&self) -> impl Iterator<Item = &ReleasedPort> {
        self.reusable
            .iter()
            .chain(&self.replied)
            .chain(&self.outstanding)
    }

    /// Adds a port that a predecessor has saved. Ports of one kind must come in the order of their release.
    pub fn restore(&mut self, port: ReleasedPort, now: Time) {
        match (port.until <= now, port.has_outstanding) {
            (true, _) => self.reusable.push_back(port),
            (false, true) => self.outstanding.push_back(port),
            (false, false) => self.replied.push_back(port),
        }
    }

    /// Returns the number of free ports, in quarantine or not.
    pub fn len(&self) -> usize {
        self.reusable.len() + self.replied.len() + self.outstanding.len()
    }

    /// Returns whether no port is free.
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

    /// A port stays longer in quarantine when replies are outstanding, and only the shorter quarantine is ever cut.
    #[test]
    fn quarantine() {
        let mut ports = FreePorts::default();
        assert_eq!(ports.lease(ms(0)), Lease::Open);
        ports.release(UpstreamSocketId(1), ms(1_000), ms(1_000), false);
        ports.release(UpstreamSocketId(2), ms(1_000), ms(1_000), true);
        assert_eq!(
            ports.lease(ms(2_999)),
            Lease::Open,
            "a new port is better than one in quarantine"
        );
        assert_eq!(
            ports.failed(ms(1_050), RETRY),
            Lease::Nothing,
            "not even if no other port is free"
        );
        assert_eq!(
            ports.failed(ms(1_100), RETRY),
            Lease::Reusable(UpstreamSocketId(1))
        );
        assert_eq!(ports.failed(ms(9_000), RETRY), Lease::Nothing);
        assert_eq!(
            ports.lease(ms(9_999)),
            Lease::Nothing,
            "no new search for a port so soon"
        );
        assert_eq!(ports.lease(ms(10_000)), Lease::Open);
        assert_eq!(
            ports.lease(ms(11_000)),
            Lease::Reusable(UpstreamSocketId(2))
        );
    }

    /// The port of a session that was silent for long has left quarantine already. Ports without use are closed, the
    /// oldest first.
    #[test]
    fn idle_ports() {
        let mut ports = FreePorts::default();
        (0..3).for_each(|socket| {
            ports.release(
                UpstreamSocketId(socket),
                ms(60_000 + u64::from(socket)),
                ms(0),
                true,
            );
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
