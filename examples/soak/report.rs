//! The results: the soak's own counts, beside the daemon's ledger, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use udispatch::observe::snapshot::Snapshot;

use crate::driver::{Diary, Event, Restart};
use crate::flow::Flow;
use crate::traffic::{Load, Outcome};
use crate::window::{Distribution, Window};

/// Largest gap that a restart should make, in milliseconds. 99 of 100 are meant to be shorter.
const GAP_P99_MAX_MS: f64 = 20.0;

/// The report of a whole soak.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Datagrams sent to the daemon.
    pub sent: u64,
    /// Replies that the clients of sessions got.
    #[serde(rename = "answered")]
    pub replies: u64,
    /// Seconds of traffic.
    pub seconds: f64,
    /// Datagrams a second that were actually sent.
    pub rate: f64,
    /// Time in seconds for which this program was late, and did not send what was due.
    pub behind_seconds: f64,
    /// Number of flows that sent all the time, and number of open sessions, idle ones included.
    pub flows: usize,
    pub sessions: usize,
    /// Counts that must be 0.
    pub faults: Faults,
    /// Changes of a session's source port towards the upstream, which lose nothing.
    pub port_changes: u64,
    /// The largest number of such changes of one session.
    pub port_changes_most: u64,
    /// Losses while no process served, after kills.
    pub lost_in_kills: u64,
    /// Datagrams that this program was too slow to take. They count as lost, too.
    pub lost_by_soak: u64,
    /// The pauses of restarts, by kind.
    pub restarts: BTreeMap<&'static str, Pauses>,
    /// The pauses that were measured between restarts.
    pub calm: Pauses,
    /// The differences between the ledger and the soak's own counts, in words.
    pub differences: Vec<String>,
    /// Kernel drops before the daemon, as the daemon counts them. They are part of the losses.
    pub kernel_drops: u64,
    /// Datagrams that the daemon dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Warnings and errors that were not caused on purpose.
    pub complaints: Vec<String>,
    /// Why the soak ended early.
    pub ended_early: Option<String>,
}

/// Counts that must be 0.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Datagrams that did not arrive at the upstream.
    pub lost: u64,
    /// Replies that did not arrive at the client.
    #[serde(rename = "answers_lost")]
    pub replies_lost: u64,
    /// Datagrams that arrived again.
    pub twice: u64,
    /// Replies that arrived again.
    #[serde(rename = "answers_twice")]
    pub replies_twice: u64,
    /// Datagrams that arrived after a later one of their flow.
    pub reordered: u64,
    /// Replies that arrived after a later one of their flow.
    #[serde(rename = "answers_reordered")]
    pub replies_reordered: u64,
    /// Replies that arrived at another client.
    pub to_wrong_client: u64,
    /// Datagrams that this program had not sent.
    pub foreign: u64,
}

/// Times in milliseconds.
#[derive(Debug, Serialize)]
pub struct Pauses {
    /// Number of restarts or calm windows.
    pub count: usize,
    /// The longest time without an arrival although something had been sent.
    pub gap_ms: Distribution,
    /// The longest time between sending and arrival.
    pub delay_ms: Distribution,
    /// The time in which no worker received, as the daemon reports it.
    pub pause_ms: Distribution,
    /// Time from the request to its completion.
    pub took_ms: Distribution,
}

impl Pauses {
    fn of<'a>(events: impl Iterator<Item = &'a Event> + Clone) -> Pauses {
        Pauses {
            count: events.clone().count(),
            gap_ms: Distribution::of(
                events
                    .clone()
                    .map(|event| milliseconds(event.window.gap_ns)),
            ),
            delay_ms: Distribution::of(
                events
                    .clone()
                    .map(|event| milliseconds(event.window.delay_ns)),
            ),
            pause_ms: Distribution::of(events.clone().filter_map(|event| event.pause_ms)),
            took_ms: Distribution::of(events.map(|event| event.took.as_secs_f64() * 1e3)),
        }
    }

    fn of_calm(calm: &[Window]) -> Pauses {
        Pauses {
            count: calm.len(),
            gap_ms: Distribution::of(calm.iter().map(|window| milliseconds(window.gap_ns))),
            delay_ms: Distribution::of(calm.iter().map(|window| milliseconds(window.delay_ns))),
            pause_ms: Distribution::default(),
            took_ms: Distribution::default(),
        }
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// The results of a soak.
pub struct Results<'a> {
    /// The load that was sent.
    pub load: &'a Load,
    /// The results of the traffic.
    pub outcome: &'a Outcome,
    /// The measurements of the restarts.
    pub diary: &'a Diary,
    /// The daemon's ledger at the end; `None` if the daemon did not respond.
    pub ledger: Option<&'a Snapshot>,
    /// Warnings and errors that were not caused on purpose.
    pub complaints: Vec<String>,
    /// Why the soak ended early.
    pub ended_early: Option<String>,
}

impl Report {
    /// Returns the report of these results.
    pub fn new(results: Results<'_>) -> Report {
        let Results {
            load,
            outcome,
            diary,
            ledger,
            complaints,
            ended_early,
        } = results;
        let sent: u64 = outcome.flows.iter().map(|flow| flow.sent).sum();
        let replies = outcome
            .flows
            .iter()
            .filter_map(|flow| flow.replies.as_ref())
            .map(|replies| replies.came)
            .sum();
        let (faults, lost_in_kills) = faults(outcome);
        let continuous: u64 = outcome.flows[..=load.flows]
            .iter()
            .map(|flow| flow.sent)
            .sum();
        let has_kills = events_of(diary, Restart::Kill).next().is_some();
        Report {
            sent,
            replies,
            seconds: outcome.lasted.as_secs_f64(),
            rate: continuous as f64 / outcome.lasted.as_secs_f64(),
            behind_seconds: outcome.skipped.as_secs_f64(),
            flows: load.flows,
            sessions: load.with_sessions + outcome.idle,
            faults,
            port_changes: outcome.flows.iter().map(|flow| flow.port_changes).sum(),
            port_changes_most: outcome
                .flows
                .iter()
                .map(|flow| flow.port_changes)
                .max()
                .unwrap_or(0),
            lost_in_kills,
            lost_by_soak: outcome.own_drops,
            restarts: pauses_by_kind(diary),
            calm: Pauses::of_calm(&diary.calm),
            differences: match ledger {
                // The ledger starts again with each process.
                Some(_) if has_kills => Vec::new(),
                Some(ledger) => differences(&outcome.flows, ledger, load.begins_small),
                None => vec!["the daemon did not respond with its ledger".to_owned()],
            },
            kernel_drops: ledger.map_or(0, kernel_drops),
            drops: ledger
                .map(|ledger| ledger.drops.clone())
                .unwrap_or_default(),
            complaints,
            ended_early,
        }
    }

    /// Returns whether nothing was lost, doubled, reordered or left undone.
    pub fn is_success(&self) -> bool {
        self.faults == Faults::default()
            && self.differences.is_empty()
            && self.ended_early.is_none()
    }
}

/// Returns the measurements of the restarts of one kind.
fn events_of(diary: &Diary, restart: Restart) -> impl Iterator<Item = &Event> + Clone {
    let events = diary.events.iter();
    events.filter(move |event| event.restart == restart)
}

/// Returns the pauses of each kind of restart that happened.
fn pauses_by_kind(diary: &Diary) -> BTreeMap<&'static str, Pauses> {
    Restart::ALL
        .into_iter()
        .filter(|(restart, _)| events_of(diary, *restart).next().is_some())
        .map(|(restart, name)| (name, Pauses::of(events_of(diary, restart))))
        .collect()
}

fn faults(outcome: &Outcome) -> (Faults, u64) {
    let mut faults = Faults {
        to_wrong_client: outcome.to_wrong_client,
        foreign: outcome.foreign,
        ..Faults::default()
    };
    let mut in_kills = 0;
    for flow in &outcome.flows {
        let lost = flow.lost();
        in_kills += lost.in_outages;
        faults.lost += lost.requests;
        faults.replies_lost += lost.replies;
        faults.twice += flow.requests.twice;
        faults.reordered += flow.requests.reordered;
        if let Some(replies) = &flow.replies {
            faults.replies_twice += replies.twice;
            faults.replies_reordered += replies.reordered;
        }
    }
    (faults, in_kills)
}

fn kernel_drops(ledger: &Snapshot) -> u64 {
    let listeners = ledger.listeners.iter().map(|row| row.counters.kernel_drops);
    listeners
        .chain(ledger.upstreams.iter().map(|row| row.counters.kernel_drops))
        .sum()
}

/// Returns the counts of the daemon that differ from those of the soak.
fn differences(flows: &[Flow], ledger: &Snapshot, may_begin_anew: bool) -> Vec<String> {
    let mut differences: Vec<String> = pairs(&Sums::of(flows), ledger, may_begin_anew)
        .into_iter()
        .filter(|(_, theirs, _, ours)| theirs != ours)
        .map(|(what, theirs, word, ours)| format!("{what}: {theirs}, {word}: {ours}"))
        .collect();
    if !ledger.balances {
        differences.push("the ledger does not balance".to_owned());
    }
    differences
}

/// The soak's own counts, over all flows.
#[derive(Default)]
struct Sums {
    sent: u64,
    /// Datagrams that arrived without sessions.
    one_way: u64,
    /// Datagrams that arrived with sessions.
    requests: u64,
    replies: u64,
    sessions: u64,
}

impl Sums {
    fn of(flows: &[Flow]) -> Sums {
        let mut sums = Sums::default();
        for flow in flows {
            sums.sent += flow.sent;
            match &flow.replies {
                None => sums.one_way += flow.requests.came + flow.requests.twice,
                Some(seen) => {
                    sums.requests += flow.requests.came + flow.requests.twice;
                    sums.replies += seen.came + seen.twice;
                    sums.sessions += u64::from(flow.sent > 0);
                }
            }
        }
        sums
    }
}

/// A count of the ledger with its name, and the count that it must be equal to.
type Pair = (&'static str, u64, &'static str, u64);

fn pairs(sums: &Sums, ledger: &Snapshot, may_begin_anew: bool) -> [Pair; 8] {
    let upstream = |handler: &'static str| {
        ledger
            .upstreams
            .iter()
            .filter(move |row| row.handler == handler)
    };
    let held = ledger
        .handlers
        .iter()
        .filter(|row| row.handler.starts_with("sessions"));
    let opened: u64 = held.clone().map(|row| row.sessions.opened).sum();
    [
        (
            "received by all workers",
            ledger.workers.iter().map(|row| row.account.received).sum(),
            "sent",
            sums.sent,
        ),
        (
            "sent one way",
            upstream("one_way").map(|row| row.counters.sent).sum(),
            "arrived",
            sums.one_way,
        ),
        (
            "sent to the upstream",
            upstream("sessions").map(|row| row.counters.sent).sum(),
            "arrived",
            sums.requests,
        ),
        (
            "replies passed on",
            held.clone().map(|row| row.replies.handled).sum(),
            "arrived",
            sums.replies,
        ),
        (
            "sessions ever opened",
            opened,
            "expected",
            if may_begin_anew {
                opened.max(sums.sessions)
            } else {
                sums.sessions
            },
        ),
        (
            "sessions open",
            held.map(|row| row.sessions.open).sum(),
            "ever opened",
            opened,
        ),
        ("dropped", ledger.drops.values().sum(), "expected", 0),
        ("dropped by the kernel", kernel_drops(ledger), "expected", 0),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            lost,
            replies_lost,
            twice,
            replies_twice,
            reordered,
            replies_reordered,
            to_wrong_client,
            foreign,
        } = self.faults;
        writeln!(
            out,
            "{} datagrams in {:.0} s, {:.0}/s, {} flows, {} sessions; {} replies",
            self.sent, self.seconds, self.rate, self.flows, self.sessions, self.replies
        )?;
        if self.behind_seconds > 0.01 * self.seconds {
            writeln!(
                out,
                "for {:.1} s this program was late and did not send what was due",
                self.behind_seconds
            )?;
        }
        writeln!(
            out,
            "\n{:<12}{:>12}{:>12}{:>12}",
            "", "lost", "twice", "reordered"
        )?;
        writeln!(
            out,
            "{:<12}{lost:>12}{twice:>12}{reordered:>12}",
            "datagrams"
        )?;
        writeln!(
            out,
            "{:<12}{replies_lost:>12}{replies_twice:>12}{replies_reordered:>12}",
            "replies"
        )?;
        writeln!(
            out,
            "replies to the wrong client: {to_wrong_client}; datagrams of other programs: {foreign}"
        )?;
        writeln!(
            out,
            "changes of a session's source port: {}; lost in kills: {}; lost by this program: {}",
            self.port_changes, self.lost_in_kills, self.lost_by_soak
        )?;
        self.fmt_pauses(out)?;
        self.fmt_complaints(out)?;
        self.fmt_verdict(out)
    }
}

impl Report {
    fn fmt_pauses(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\nms, p50/p99/max  {:>6}  {:>20}  {:>20}  {:>20}  {:>20}",
            "count", "gap in arrivals", "longest delay", "pause of the workers", "took"
        )?;
        for (name, pauses) in self
            .restarts
            .iter()
            .map(|(name, pauses)| (*name, pauses))
            .chain([("calm", &self.calm)])
        {
            let Pauses {
                count,
                gap_ms,
                delay_ms,
                pause_ms,
                took_ms,
            } = pauses;
            writeln!(
                out,
                "{name:<16} {count:>6}  {:>20}  {:>20}  {:>20}  {:>20}",
                short(gap_ms),
                short(delay_ms),
                short(pause_ms),
                short(took_ms)
            )?;
        }
        writeln!(out)
    }

    fn fmt_complaints(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            writeln!(out, "the daemon's ledger has the same counts")?;
        } else {
            self.differences
                .iter()
                .try_for_each(|line| writeln!(out, "ledger: {line}"))?;
        }
        self.complaints
            .iter()
            .try_for_each(|line| writeln!(out, "log: {line}"))?;
        if let Some(why) = &self.ended_early {
            writeln!(out, "ended early: {why}")?;
        }
        Ok(())
    }

    fn fmt_verdict(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restarts = ["takeovers", "reloads"]
            .iter()
            .filter_map(|name| self.restarts.get(name));
        let worst = restarts.map(|pauses| pauses.gap_ms.p99).fold(0.0, f64::max);
        let verdict = if self.is_success() {
            "nothing was lost, doubled or reordered"
        } else {
            "FAILED"
        };
        let gap = if worst <= GAP_P99_MAX_MS {
            "within"
        } else {
            "above"
        };
        writeln!(
            out,
            "{verdict}; gap p99 {worst:.1} ms, {gap} the limit of {GAP_P99_MAX_MS} ms"
        )
    }
}

fn short(distribution: &Distribution) -> String {
    match distribution.count {
        0 => "-".to_owned(),
        _ => format!(
            "{:.1}/{:.1}/{:.1}",
            distribution.p50, distribution.p99, distribution.max
        ),
    }
}
