//! The cases that the seeds together have met. A simulation that never meets a case proves nothing about it.

use std::collections::HashMap;

use udispatch::dispatch::ledger::Ledger;
use udispatch::dispatch::verdict::DropReason;

/// Drop reasons that forwarding and its sessions lead to.
const REASONS: [DropReason; 10] = [
    DropReason::TtlSpent,
    DropReason::SessionLimit,
    DropReason::SessionShare,
    DropReason::NoPort,
    DropReason::NoUpstream,
    DropReason::LateReply,
    DropReason::NotFirst,
    DropReason::Shadow,
    DropReason::SampledOut,
    DropReason::RateLimit,
];

/// All other cases that must be met.
const CASES: [&str; 18] = [
    "round_robin",
    "random",
    "hash",
    "least_sessions",
    "first_alive",
    "backup",
    "key away from home",
    "died",
    "revived",
    "renewed",
    "unbound",
    "socket reused",
    "socket hurried",
    "moved socket closed",
    "spare socket closed",
    "stray",
    "stray, hurried",
    "unclear",
];

#[derive(Default)]
pub struct Covered {
    dropped: HashMap<DropReason, u64>,
    met: HashMap<&'static str, u64>,
    ends: [(&'static str, u64); 9],
}

impl Covered {
    pub fn add(&mut self, ledger: &Ledger, met: &[&'static str]) {
        met.iter()
            .for_each(|case| *self.met.entry(case).or_default() += 1);
        for count in &ledger.handlers {
            for reason in DropReason::ALL {
                let dropped = count.tally.dropped_for(*reason) + count.replies.dropped_for(*reason);
                *self.dropped.entry(*reason).or_default() += dropped;
            }
            let sessions = count.sessions;
            let ends = [
                ("opened", sessions.opened),
                ("idle", sessions.idle),
                ("unanswered", sessions.unanswered),
                ("complete", sessions.complete),
                ("evicted", sessions.evicted),
                ("broken", sessions.broken),
                ("one way", sessions.one_way),
                ("requests handled", count.tally.handled),
                ("answers passed on", count.replies.handled),
            ];
            self.ends
                .iter_mut()
                .zip(ends)
                .for_each(|(sum, (name, more))| *sum = (name, sum.1 + more));
        }
        for (place, name) in ["same", "different", "missing"].into_iter().enumerate() {
            let count: u64 = ledger
                .upstreams
                .iter()
                .map(|upstream| upstream.shadow.values()[place])
                .sum();
            *self.met.entry(name).or_default() += count;
        }
    }

    pub fn check(&self) {
        for reason in REASONS {
            assert!(self.dropped[&reason] > 0, "no seed leads to {reason:?}");
        }
        for case in CASES.iter().chain(&["same", "different", "missing"]) {
            assert!(
                self.met.get(case).is_some_and(|count| *count > 0),
                "no seed leads to {case}: {:?}",
                self.met
            );
        }
        assert!(
            self.ends.iter().all(|(_, count)| *count > 100),
            "some of it hardly happens: {:?}",
            self.ends
        );
        if std::env::var("UDISPATCH_SEEDS").is_ok() {
            eprintln!("{:?}\n{:?}\n{:?}", self.dropped, self.met, self.ends);
        }
    }
}
