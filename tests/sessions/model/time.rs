//! What time alone does: sessions end, dead upstreams are tried again, and free sockets are closed.

use udispatch::dispatch::ledger::SessionCount;

use super::{Cause, Session, Shared, Step, Talker};
use crate::scenario::Replies;

impl Talker {
    /// The time at which a session ends unless a datagram passes.
    fn deadline(&self, session: &Session) -> u64 {
        let is_patient = session.is_assured || self.spec.replies == Replies::No;
        session.seen
            + if is_patient {
                self.spec.idle
            } else {
                self.spec.unreplied
            }
    }

    /// The last moment at which the timer of the handler may be due.
    pub fn deadline_max(&self) -> Option<u64> {
        self.sessions
            .iter()
            .map(|session| self.deadline(session) + self.spec.late_max())
            .min()
    }

    /// The handler was called because its timer was due.
    pub fn pass_time(
        &mut self,
        found: &SessionCount,
        is_punctual: bool,
        shared: &mut Shared,
        step: &mut Step,
    ) {
        let now = step.now;
        for place in 0..self.spec.receivers.len() {
            self.update_health(place, |health| health.pass_time(now), step);
        }
        step.closed.extend(
            self.unclear_closed
                .drain(..)
                .map(|socket| (socket, self.handler)),
        );
        self.settle(found, shared, step);
        self.check_spares(is_punctual, step);
        if self.is_unclear() {
            step.met.push("unclear");
            let own = |(socket, _): (&u32, &usize)| *socket;
            self.unclear_closed = step
                .closed
                .iter()
                .filter(|(_, whose)| **whose == self.handler)
                .map(own)
                .collect();
        }
    }

    /// Determines which sessions have ended. All whose time was over must have within two slots, and no others may.
    fn settle(&mut self, found: &SessionCount, shared: &mut Shared, step: &mut Step) {
        let now = step.now;
        let late_max = self.spec.late_max();
        let ended =
            (found.idle + found.unanswered - self.ends.idle - self.ends.unanswered) as usize;
        let over: Vec<usize> = (0..self.sessions.len())
            .filter(|at| self.deadline(&self.sessions[*at]) <= now)
            .collect();
        let must = over
            .iter()
            .filter(|at| self.deadline(&self.sessions[**at]) + late_max <= now)
            .count();
        assert!(
            ended >= must,
            "{ended} sessions have ended, {must} are over for longer than {late_max} ns"
        );
        assert!(
            ended <= over.len(),
            "{ended} sessions have ended, {} are over",
            over.len()
        );
        if ended == 0 {
            return;
        }
        let since = *self.unclear_since.get_or_insert(now);
        if ended == over.len() {
            self.unclear_since = None;
            over.into_iter()
                .rev()
                .for_each(|at| self.end(at, Cause::Time, (since, now), None, shared, step));
        }
    }
}
