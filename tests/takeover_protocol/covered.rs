//! The cases that the seeds together have met. A simulation that never meets a case proves nothing about it.

use std::collections::BTreeMap;

/// Each case that has to occur.
const CASES: [&str; 38] = [
    "taken over",
    "final counts received",
    "final counts lost by the client",
    "final counts lost by the server",
    "client retries",
    "client serves alone",
    "client exits",
    "client killed in time",
    "client ends late after SIGKILL",
    "client survives SIGKILL",
    "server failed: ClosedBefore(Hello)",
    "server failed: ClosedBefore(Ready)",
    "server failed: ClosedBefore(Started)",
    "server failed: ClosedDuring(Manifest)",
    "server failed: ClosedDuring(Released)",
    "server failed: NotReceived(Hello",
    "server failed: NotReceived(Ready",
    "server failed: NotReceived(Started",
    "server failed: NotSent(Manifest",
    "server failed: NotSent(Released",
    "server failed: TooLarge(Released",
    "server failed: Refused",
    "server failed: Malformed",
    "server failed: System",
    "client failed: ClosedBefore(Manifest)",
    "client failed: ClosedBefore(Released)",
    "client failed: ClosedDuring(Ready)",
    "client failed: NotReceived(Manifest",
    "client failed: NotReceived(Released",
    "client failed: NotSent(Ready",
    "client failed: Refused",
    "client failed: Malformed",
    "client failed: System",
    "refused: the configuration has changed",
    "refused: a reload is in progress",
    "refused: the previous process has not sent",
    "refused: another process is already taking over",
    "refused: no threads",
];

/// How often each case has occurred.
#[derive(Default)]
pub struct Covered(BTreeMap<String, u64>);

impl Covered {
    pub fn meet(&mut self, case: impl Into<String>) {
        *self.0.entry(case.into()).or_default() += 1;
    }

    pub fn check(&self) {
        for case in CASES {
            let met = self.0.keys().any(|met| met.starts_with(case));
            assert!(met, "no seed leads to `{case}`: {:#?}", self.0);
        }
    }
}
