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
    pub answered: u64,
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
    pub answers_lost: u64,
    /// Datagrams that arrived again.
    pub twice: u64,
    /// Replies that arrived again.
    pub answers_twice: u64,
    /// Datagrams that arrived after a later one of their flow.
    pub reordered: u64,
    /// Replies that arrived after a later one of their flow.
    pub answers_reordered: u64,
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

impl Report {
    /// A report of these results. `ledger` is the daemon's at the end, or `None` if it could not be requested.
    pub fn new(
        load: &Load,
        outcome: &Outcome,
        diary: &Diary,
        ledger: Option<&Snapshot>,
        complaints: Vec<String>,
        ended_early: Option<String>,
    ) -> Report {
        let sent: u64 = outcome.flows.iter().map(|flow| flow.sent).sum();
        let answered = outcome
            .flows
            .iter()
            .filter_map(|flow| flow.answers.as_ref())
            .map(|answers| answers.came)
            .sum();
        let (faults, lost_in_kills) = faults(outcome);
        let continuous: u64 = outcome.flows[..=load.flows]
            .iter()
            .map(|flow| flow.sent)
            .sum();
        let of = |restart: Restart| {
            diary
                .events
                .iter()
                .filter(move |event| event.restart == restart)
        };
        let has_kills = of(Restart::Kill).next().is_some();
        Report {
            sent,
            answered,
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
            restarts: Restart::ALL
                .into_iter()
                .filter(|(restart, _)| of(*restart).next().is_some())
                .map(|(restart, name)| (name, Pauses::of(of(restart))))
                .collect(),
            calm: Pauses::of_calm(&diary.calm),
            differences: match ledger {
                // The ledger starts again with each process.
                Some(_) if has_kills => Vec::new(),
                Some(ledger) => differences(&outcome.flows, ledger, load.begins_small),
                None => vec!["the daemon could not be asked for its ledger".to_owned()],
            },
            kernel_drops: ledger.map_or(0, kernel_drops),
            drops: ledger
                .map(|ledger| ledger.drops.clone())
                .unwrap_or_default(),
            complaints,
            ended_early,
        }
    }

    /// Whether nothing was lost, doubled, reordered or left undone.
    pub fn is_success(&self) -> bool {
        self.faults == Faults::default()
            && self.differences.is_empty()
            && self.ended_early.is_none()
    }
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
        faults.answers_lost += lost.answers;
        faults.twice += flow.requests.twice;
        faults.reordered += flow.requests.reordered;
        if let Some(answers) = &flow.answers {
            faults.answers_twice += answers.twice;
            faults.answers_reordered += answers.reordered;
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

/// The counts of the daemon that differ from those of the soak.
fn differences(flows: &[Flow], ledger: &Snapshot, may_begin_anew: bool) -> Vec<String> {
    let mut one_way = 0;
    let mut requests = 0;
    let mut answers = 0;
    let mut sent = 0;
    let mut sessions = 0;
    for flow in flows {
        sent += flow.sent;
        match &flow.answers {
            None => one_way += flow.requests.came + flow.requests.twice,
            Some(seen) => {
                requests += flow.requests.came + flow.requests.twice;
                answers += seen.came + seen.twice;
                sessions += u64::from(flow.sent > 0);
            }
        }
    }
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
    let pairs = [
        (
            "received by all workers",
            ledger.workers.iter().map(|row| row.account.received).sum(),
            "sent",
            sent,
        ),
        (
            "sent one way",
            upstream("one_way").map(|row| row.counters.sent).sum(),
            "arrived",
            one_way,
        ),
        (
            "sent to the upstream",
            upstream("sessions").map(|row| row.counters.sent).sum(),
            "arrived",
            requests,
        ),
        (
            "answers passed on",
            held.clone().map(|row| row.replies.handled).sum(),
            "arrived",
            answers,
        ),
        (
            "sessions ever opened",
            opened,
            "wanted",
            if may_begin_anew {
                opened.max(sessions)
            } else {
                sessions
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
    ];
    let unlike = pairs
        .into_iter()
        .filter(|(_, theirs, _, ours)| theirs != ours);
    let mut differences: Vec<String> = unlike
        .map(|(what, theirs, word, ours): (_, u64, _, u64)| {
            format!("{what}: {theirs}, {word}: {ours}")
        })
        .collect();
    if !ledger.balances {
        differences.push("the ledger does not balance".to_owned());
    }
    differences
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            lost,
            answers_lost,
            twice,
            answers_twice,
            reordered,
            answers_reordered,
            to_wrong_client,
            foreign,
        } = self.faults;
        writeln!(
            out,
            "{} datagrams in {:.0} s, {:.0}/s, {} flows, {} sessions; {} answers",
            self.sent, self.seconds, self.rate, self.flows, self.sessions, self.answered
        )?;
        if self.behind_seconds > 0.01 * self.seconds {
            writeln!(
                out,
                "for {:.1} s this program was late, and what was due then was not sent",
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
            "{:<12}{answers_lost:>12}{answers_twice:>12}{answers_reordered:>12}",
            "answers"
        )?;
        writeln!(
            out,
            "answers to the wrong client: {to_wrong_client}; datagrams that nobody sent: {foreign}"
        )?;
        writeln!(
            out,
            "changes of a session's source port: {}; lost in kills: {}; lost by this program: {}",
            self.port_changes, self.lost_in_kills, self.lost_by_soak
        )?;
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
        writeln!(out)?;
        if self.differences.is_empty() {
            writeln!(out, "the daemon's ledger says the same")?;
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
            "{verdict}; gap p99 {worst:.1} ms, {gap} the {GAP_P99_MAX_MS} ms that are wanted"
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
