//! `kernel_drops`: the kernel dropped datagrams because a receive buffer was full. The buffer size that the kernel
//! granted decides which of two cures helps. If it is less than the file requests, the host's limit is too low.
//! Otherwise the workers are too slow.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::input::{Alarm, AlarmInput, Sockets};
use crate::observe::snapshot::rows::ListenerRow;

/// How long the alarm lasts after the last drop of a listener.
const ALARM_DURATION: Duration = Duration::from_secs(60);

/// The drop counters of each listener that ever dropped in the kernel.
#[derive(Debug, Default)]
pub struct KernelDrops {
    rises: HashMap<String, Rise>,
    /// Whether the counters seen first were accumulated by a previous process.
    is_inherited: bool,
}

/// A counter that rose.
#[derive(Debug)]
struct Rise {
    count: u64,
    /// When the counter was last seen to rise; `None` if it was only nonzero.
    last: Option<Instant>,
    /// The value before the counter began to rise, and the time of that value.
    first: (u64, u64),
}

impl KernelDrops {
    /// Returns the state for a process that continues the counters of another process.
    pub fn inherited() -> KernelDrops {
        KernelDrops {
            is_inherited: true,
            ..KernelDrops::default()
        }
    }

    /// Returns the current alarms, in the order of the listeners.
    pub fn alarms(&mut self, input: &AlarmInput<'_>) -> Vec<Alarm> {
        self.rises.retain(|listener, _| {
            input
                .listeners
                .iter()
                .any(|(row, _)| row.listener == *listener)
        });
        let is_inherited = std::mem::take(&mut self.is_inherited);
        let alarm = |(row, sockets): &(&ListenerRow, Sockets)| {
            let (dropped, since) = self.rise(row, is_inherited, input)?;
            Some(make_alarm(row, *sockets, dropped, since))
        };
        input.listeners.iter().filter_map(alarm).collect()
    }

    /// Returns the number of drops since the rise began, and the time of its beginning.
    fn rise(
        &mut self,
        row: &ListenerRow,
        is_inherited: bool,
        input: &AlarmInput<'_>,
    ) -> Option<(u64, u64)> {
        let known = match self.rises.get_mut(&row.listener) {
            _ if row.counters.kernel_drops == 0 => return None,
            Some(rise) => rise,
            None => {
                let count = if is_inherited {
                    row.counters.kernel_drops
                } else {
                    0
                };
                let rise = Rise {
                    count,
                    last: None,
                    first: (count, input.now_unix),
                };
                self.rises.entry(row.listener.clone()).or_insert(rise)
            }
        };
        let is_over = |last: Option<Instant>| {
            last.is_none_or(|last| input.now.saturating_duration_since(last) > ALARM_DURATION)
        };
        if row.counters.kernel_drops > known.count {
            if is_over(known.last) {
                known.first = (known.count, input.now_unix);
            }
            known.count = row.counters.kernel_drops;
            known.last = Some(input.now);
        }
        let (before, since) = known.first;
        (!is_over(known.last)).then_some((row.counters.kernel_drops.saturating_sub(before), since))
    }
}

fn make_alarm(row: &ListenerRow, sockets: Sockets, dropped: u64, since: u64) -> Alarm {
    let listener = &row.listener;
    let granted = row.receive_buffer_bytes;
    let Sockets {
        requested,
        readers,
        processors,
        is_spread,
    } = sockets;
    let lost = format!(
        "the kernel dropped {dropped} datagrams to {listener}: the receive buffer was full"
    );
    let (text, cure) = if granted < requested {
        (
            format!("{lost}; it has {granted} bytes, and `receive_buffer` requests {requested}"),
            format!(
                "`sysctl -w net.core.rmem_max={requested}` (or CAP_NET_ADMIN), then `udispatch reload`"
            ),
        )
    } else {
        let text = format!(
            "{lost}, although it has the {requested} bytes that `receive_buffer` requests: {}",
            too_slow(readers)
        );
        let cure = match (is_spread, readers < processors) {
            (false, _) => {
                "one worker reads this destination: reduce the work for each datagram; for bursts raise `receive_buffer`"
                    .to_owned()
            }
            (true, true) => format!(
                "raise `workers`, which is {readers} on {processors} processors; for bursts raise `receive_buffer`"
            ),
            (true, false) => format!(
                "each of the {processors} processors has a worker already: reduce the work for each datagram, or \
                 add processors; for bursts raise `receive_buffer`"
            ),
        };
        (text, cure)
    };
    Alarm {
        name: "kernel_drops".to_owned(),
        about: listener.clone(),
        since,
        text,
        cure,
    }
}

fn too_slow(readers: usize) -> &'static str {
    if readers == 1 {
        "its worker does not keep up"
    } else {
        "its workers do not keep up"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::ledger::ListenerCounters;
    use crate::observe::snapshot::Account;

    const ENOUGH: Sockets = Sockets {
        requested: 1_000,
        readers: 1,
        processors: 2,
        is_spread: true,
    };

    /// Returns the alarm for a listener for which the kernel has dropped `drops` datagrams.
    fn alarm_after(
        memory: &mut KernelDrops,
        drops: u64,
        sockets: Sockets,
        now: Instant,
        now_unix: u64,
    ) -> Option<Alarm> {
        let row = ListenerRow {
            listener: "127.0.0.1:1".to_owned(),
            account: Account::default(),
            counters: ListenerCounters {
                kernel_drops: drops,
                ..ListenerCounters::default()
            },
            receive_buffer_bytes: 1_000,
        };
        let input = AlarmInput {
            listeners: vec![(&row, sockets)],
            upstreams: &[],
            expected: Vec::new(),
            now,
            now_unix,
        };
        memory.alarms(&input).pop()
    }

    /// The alarm of a listener lasts from the first drop that is seen until a minute after the last. A later drop
    /// begins a new alarm.
    #[test]
    fn kernel_drops_last_a_minute() {
        let mut memory = KernelDrops::default();
        let start = Instant::now();
        let mut at = |seconds: u64, drops| {
            let alarm = alarm_after(
                &mut memory,
                drops,
                ENOUGH,
                start + Duration::from_secs(seconds),
                1_000 + seconds,
            );
            alarm.map(|alarm| {
                (
                    alarm.since,
                    alarm.text.contains(&format!("dropped {drops} ")),
                )
            })
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 5), Some((1_001, true)));
        assert_eq!(at(30, 7), Some((1_001, true)));
        assert_eq!(at(89, 7), Some((1_001, true)));
        assert_eq!(at(91, 7), None);
        assert_eq!(at(92, 8), Some((1_092, false)), "one new drop, not eight");
    }

    /// Drops that another process counted before the takeover raise no alarm; later drops do.
    #[test]
    fn inherited_drops_raise_no_alarm() {
        let mut memory = KernelDrops::inherited();
        let now = Instant::now();
        assert_eq!(alarm_after(&mut memory, 5, ENOUGH, now, 1), None);
        let alarm = alarm_after(&mut memory, 7, ENOUGH, now, 2).expect("two more");
        assert!(
            alarm.since == 2 && alarm.text.contains("dropped 2 "),
            "{alarm:?}"
        );
    }

    /// The cure names the host's limit if that is too low, and more workers if there are processors for them. If
    /// neither helps, it names neither.
    #[test]
    fn the_cure_fits_the_cause() {
        let cure = |sockets| {
            alarm_after(&mut KernelDrops::default(), 1, sockets, Instant::now(), 1)
                .expect("an alarm")
                .cure
        };
        assert!(
            cure(Sockets {
                requested: 1_001,
                ..ENOUGH
            })
            .contains("net.core.rmem_max=1001")
        );
        assert!(cure(ENOUGH).starts_with("raise `workers`, which is 1 on 2 "));
        assert!(
            cure(Sockets {
                readers: 2,
                ..ENOUGH
            })
            .starts_with("each of the 2 processors has a worker")
        );
        assert!(
            cure(Sockets {
                is_spread: false,
                ..ENOUGH
            })
            .starts_with("one worker reads this destination")
        );
    }
}
