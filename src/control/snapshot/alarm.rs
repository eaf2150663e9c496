//! Alarms: what stands out now, as state, each with its cure. An alarm is there as long as its cause; nothing has to be
//! acknowledged. What needs a memory (a counter that rises) is remembered here between two snapshots.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::host::HostCounts;
use super::rows::{ListenerRow, UpstreamRow};

/// A listener that dropped in the kernel is an alarm for so long.
const KERNEL_DROPS_LAST: Duration = Duration::from_secs(60);

/// Something that stands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What kind it is, one of a closed set: `upstream_dead`, `kernel_drops`, …
    pub name: String,
    /// What it is about, by its name in the configuration.
    pub about: String,
    /// Since when, in unix seconds.
    pub since: u64,
    /// What is the matter, as a sentence.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

/// What is remembered between two snapshots.
#[derive(Debug, Default)]
pub struct Memory {
    /// Of each listener that ever dropped in the kernel.
    drops: HashMap<String, Rise>,
    /// Since when an upstream is dead, by its name: what comes back to workers has no time of its own.
    dead: HashMap<String, u64>,
    /// What the host counted when it was last asked.
    pub(super) host: HostCounts,
}

/// A counter that rose.
#[derive(Debug)]
struct Rise {
    count: u64,
    /// When it was last seen to have risen.
    last: Instant,
    /// What it was, and when, before it began to rise.
    first: (u64, u64),
}

impl Memory {
    /// The alarms of these rows, which have been there since their causes were first seen.
    pub fn alarms(
        &mut self,
        listeners: &[ListenerRow],
        upstreams: &[UpstreamRow],
        now: Instant,
        now_unix: u64,
    ) -> Vec<Alarm> {
        let mut alarms = self.dead(upstreams, now_unix);
        alarms.extend(listeners.iter().filter_map(|listener| self.dropping(listener, now, now_unix)));
        alarms
    }

    fn dead(&mut self, upstreams: &[UpstreamRow], now_unix: u64) -> Vec<Alarm> {
        let about = |row: &UpstreamRow| format!("{}/{}", row.handler, row.upstream);
        let dead: HashMap<String, &UpstreamRow> =
            upstreams.iter().filter(|row| !row.alive).map(|row| (about(row), row)).collect();
        self.dead.retain(|known, _| dead.contains_key(known));
        let mut alarms = Vec::new();
        for (about, row) in dead {
            let since = *self.dead.entry(about.clone()).or_insert(now_unix);
            let (why, cure) = match &row.last_failure {
                Some(failure) if row.dead_in_workers == 0 => (failure.text.clone(), failure.cure.clone()),
                _ => (
                    "it refuses, or has stopped answering".to_owned(),
                    "is it running, and is the port right? It is tried again every 5 s".to_owned(),
                ),
            };
            let text = format!("upstream {} of handler {} is thought dead: {why}", row.upstream, row.handler);
            alarms.push(Alarm { name: "upstream_dead".to_owned(), about, since, text, cure });
        }
        alarms.sort_by(|one, other| one.about.cmp(&other.about));
        alarms
    }

    fn dropping(&mut self, row: &ListenerRow, now: Instant, now_unix: u64) -> Option<Alarm> {
        let known = self.drops.get_mut(&row.listener);
        let known = match known {
            _ if row.kernel_drops == 0 => return None,
            Some(rise) => rise,
            None => {
                let rise = Rise { count: 0, last: now, first: (0, now_unix) };
                self.drops.entry(row.listener.clone()).or_insert(rise)
            }
        };
        if row.kernel_drops > known.count {
            if known.count > 0 && now.saturating_duration_since(known.last) > KERNEL_DROPS_LAST {
                known.first = (known.count, now_unix);
            }
            (known.count, known.last) = (row.kernel_drops, now);
        }
        if now.saturating_duration_since(known.last) > KERNEL_DROPS_LAST {
            return None;
        }
        let (before, since) = known.first;
        let (listener, more) = (&row.listener, row.kernel_drops.saturating_sub(before));
        Some(Alarm {
            name: "kernel_drops".to_owned(),
            about: listener.clone(),
            since,
            text: format!("the kernel dropped {more} datagrams to {listener} before us: its receive buffer was full"),
            cure: "raise `receive_buffer` (and net.core.rmem_max) or `workers`, or give the machine more cores"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot::Account;

    fn listener(kernel_drops: u64) -> ListenerRow {
        let account = Account::default();
        ListenerRow { listener: "127.0.0.1:1".to_owned(), account, kernel_drops, receive_errors: 0 }
    }

    /// A listener that drops in the kernel is an alarm from the first drop that is seen until a minute after the last, and
    /// one that drops again later begins anew.
    #[test]
    fn kernel_drops_last_a_minute() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let mut at = |seconds: u64, drops| {
            let now = start + Duration::from_secs(seconds);
            let alarms = memory.alarms(&[listener(drops)], &[], now, 1_000 + seconds);
            alarms.first().map(|alarm| (alarm.since, alarm.text.contains(&format!("dropped {} ", drops))))
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 5), Some((1_001, true)));
        assert_eq!(at(30, 7), Some((1_001, true)));
        assert_eq!(at(89, 7), Some((1_001, true)));
        assert_eq!(at(91, 7), None);
        assert_eq!(at(92, 8), Some((1_092, false)), "one new drop, not eight");
    }
}
