//! The rows of the ledger: the counters of a listener, a handler and an upstream, each declared once.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::dispatch::counters::{CounterField, ErrnoCounts, SharedFamily, counters, growth};

counters! {
    /// Plain counters of a listener.
    pub struct ListenerCounters {
        /// Datagrams that the kernel dropped: receive buffer full.
        kernel_drops: counter("kernel drops", metric "kernel_dropped_datagrams_total",
            note "dropped by the kernel: the receive buffer was full; raise `receive_buffer` or `workers`");
        /// Receive calls that failed and were retried.
        receive_errors: counter("receive errors", metric "receive_errors_total",
            note "receive calls failed and were retried");
    }
}

/// The counters of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerCount {
    /// The datagrams that receive calls of this daemon returned.
    pub tally: Tally,
    /// The drops are those of SO_MEMINFO, where a train of a segmenting sender counts once. Receive errors do not
    /// include calls that found no datagram.
    #[serde(flatten)]
    pub counters: ListenerCounters,
}

impl ListenerCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &ListenerCount) {
        self.tally.add(&other.tally);
        self.counters.add(&other.counters);
    }

    /// Returns what was counted since an earlier copy.
    pub fn since(&self, earlier: &ListenerCount) -> ListenerCount {
        ListenerCount {
            tally: self.tally.since(&earlier.tally),
            counters: self.counters.since(&earlier.counters),
        }
    }
}

counters! {
    /// Plain counters of a handler.
    pub struct HandlerCounters {
        /// Datagrams sent by the handler and accepted by the kernel.
        sent: counter("sent", metric "handler_sent_datagrams_total");
    }
}

/// The counters of a handler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerCount {
    /// The datagrams that the handler's routes gave it. A route with several handlers gives each datagram to each of
    /// them.
    pub tally: Tally,
    /// The plain counters.
    #[serde(flatten)]
    pub counters: HandlerCounters,
    /// Datagrams that the kernel refused to send, by errno.
    pub failed: ErrnoCounts,
    /// Errors that came back by ICMP for datagrams that were sent, by errno. The kernel reports only the latest
    /// error, so there may have been more.
    pub reported: ErrnoCounts,
    /// The replies of the handler's upstreams. Handled are those that were passed on to a client.
    pub replies: Tally,
    /// The counters of the handler's sessions; all zero for a handler without sessions.
    #[serde(serialize_with = "former_keys::serialize")]
    pub sessions: SessionCount,
}

impl HandlerCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &HandlerCount) {
        self.tally.add(&other.tally);
        self.counters.add(&other.counters);
        self.failed.add(&other.failed);
        self.reported.add(&other.reported);
        self.replies.add(&other.replies);
        self.sessions.add(&other.sessions);
    }

    /// Returns what was counted since a copy from which the open sessions were exported. Of the sessions, only
    /// `one_way` is counted: those that ended since then also began since then.
    pub fn since_export(&self, exported: &HandlerCount) -> HandlerCount {
        HandlerCount {
            tally: self.tally.since(&exported.tally),
            counters: self.counters.since(&exported.counters),
            failed: self.failed.since(&exported.failed),
            reported: self.reported.since(&exported.reported),
            replies: self.replies.since(&exported.replies),
            sessions: SessionCount {
                one_way: growth(self.sessions.one_way, exported.sessions.one_way),
                ..SessionCount::default()
            },
        }
    }

    /// Returns the counters without the gauges of sessions.
    pub fn without_gauges(&self) -> HandlerCount {
        HandlerCount {
            sessions: self.sessions.without_gauges(),
            ..self.clone()
        }
    }

    /// Records the result of sending datagrams that the handler caused.
    pub fn record(&mut self, sent: Sent) {
        sent.record(
            &mut self.counters.sent,
            &mut self.failed,
            &mut self.reported,
        );
    }
}

/// The ends of sessions. The causes are the ways in which a session can end.
const ENDED: SharedFamily = SharedFamily {
    name: "sessions_ended_total",
    help: "Sessions that ended, by cause.",
    label: "cause",
};

counters! {
    /// The counters of a set of sessions.
    pub struct SessionCount {
        /// Sessions that are open now.
        open: gauge("sessions open", metric "sessions");
        /// Open sessions that have had no reply yet.
        unreplied: gauge("unreplied", metric "sessions_unreplied", former "on_probation");
        /// Source ports that are open: leased, in quarantine or idle.
        ports: gauge("source ports", metric "source_ports");
        /// Sessions opened so far.
        opened: counter("opened", metric "sessions_opened_total");
        /// Sessions taken over from a handler that a reload replaced.
        inherited: counter("inherited", metric "sessions_inherited_total");
        /// Sessions that continue in another handler after a reload.
        left: counter("left", metric "sessions_left_total");
        /// Sessions that ended because they had no traffic.
        idle: counter("idle", part "idle" of ENDED);
        /// Sessions that ended without a reply.
        unanswered: counter("unanswered", part "unanswered" of ENDED);
        /// Sessions that ended because all replies had arrived (`replies_max`).
        complete: counter("complete", part "complete" of ENDED);
        /// Unreplied sessions that were ended to make room for another.
        evicted: counter("evicted", part "evicted" of ENDED, former "displaced");
        /// Sessions that ended because their socket towards the upstream broke, or because their upstream died.
        broken: counter("broken", part "broken" of ENDED);
        /// Datagrams forwarded without a session: replies are forbidden.
        one_way: counter("one way", metric "one_way_datagrams_total",
            note "forwarded without a session: their senders may not be replied to (source port below 1024 or 0, group or own address, an upstream, or sent to a group)");
    }
}

impl SessionCount {
    /// Returns whether a counter is a cause of the end of sessions.
    pub fn is_end(field: &CounterField) -> bool {
        field
            .metric
            .is_some_and(|metric| metric.family == ENDED.name)
    }

    /// Returns whether the number of sessions opened equals the number ended or still open.
    pub fn balances(&self) -> bool {
        let ends = self.iter().filter(|(field, _)| Self::is_end(field));
        let ended: u64 = ends.map(|(_, sessions)| sessions).sum();
        self.opened + self.inherited == self.open + ended + self.left
    }
}

/// Serializes the counters of sessions with the keys that a process of the former version reads.
mod former_keys {
    use serde::Serializer;

    use super::SessionCount;

    /// Writes a map from key to value.
    ///
    /// # Errors
    ///
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(
        count: &SessionCount,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let entries = count.iter();
        serializer.collect_map(
            entries.map(|(field, value)| (field.former_key.unwrap_or(field.key), value)),
        )
    }
}

counters! {
    /// Plain counters of an upstream.
    pub struct UpstreamCounters {
        /// Datagrams for the upstream that the kernel accepted.
        sent: counter("sent", metric "upstream_sent_datagrams_total");
        /// Datagrams outside the upstream's sample or above its rate.
        skipped: counter("skipped", metric "upstream_skipped_datagrams_total");
        /// Replies of the upstream.
        replies: counter("replies", metric "upstream_replies_total");
        /// Sessions that use the upstream now.
        sessions: gauge("sessions", metric "upstream_sessions");
        /// Replies that the kernel dropped: receive buffer full.
        kernel_drops: counter("kernel drops", metric "upstream_kernel_dropped_replies_total",
            note "replies dropped by the kernel: a session's receive buffer was full; raise net.core.rmem_max");
    }
}

/// The comparisons of a shadow's replies.
const COMPARED: SharedFamily = SharedFamily {
    name: "upstream_shadow_replies_total",
    help: "Replies of a shadow, compared with those to clients.",
    label: "result",
};

counters! {
    /// Replies of a shadow, compared with those that clients received.
    pub struct ShadowCounts {
        /// Replies with equal bytes, as far as a 64-bit hash can tell.
        same: counter("same", part "same" of COMPARED);
        /// Replies with different bytes.
        different: counter("different", part "different" of COMPARED);
        /// Replies that the client received and the shadow did not send.
        missing: counter("missing", part "missing" of COMPARED);
    }
}

/// Serializes the counters of a shadow as a list, as processes of the former version do.
mod as_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ShadowCounts;

    /// Writes the values in the order of their declarations.
    ///
    /// # Errors
    ///
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(
        counts: &ShadowCounts,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        counts.values().serialize(serializer)
    }

    /// Reads the values in the order of their declarations.
    ///
    /// # Errors
    ///
    /// Returns the error of the deserializer if the input is not a list of three numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ShadowCounts, D::Error> {
        let [same, different, missing] = Deserialize::deserialize(deserializer)?;
        Ok(ShadowCounts {
            same,
            different,
            missing,
        })
    }
}

/// The counters of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCount {
    /// The plain counters.
    #[serde(flatten)]
    pub counters: UpstreamCounters,
    /// Datagrams for the upstream that the kernel refused, by errno.
    pub failed: ErrnoCounts,
    /// Errors that came back from the upstream, by errno.
    pub reported: ErrnoCounts,
    /// For a shadow, the results of comparing its replies.
    #[serde(with = "as_list")]
    pub shadow: ShadowCounts,
    /// The number of workers that consider the upstream dead by passive health.
    pub dead_in: u32,
    /// The number of workers in which the upstream is draining.
    pub draining_in: u32,
}

impl UpstreamCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &UpstreamCount) {
        self.counters.add(&other.counters);
        self.failed.add(&other.failed);
        self.reported.add(&other.reported);
        self.shadow.add(&other.shadow);
        self.dead_in += other.dead_in;
        self.draining_in += other.draining_in;
    }

    /// Returns what was counted since a copy with which the sockets towards the upstream were exported. Replies are not
    /// counted: the process that has the sockets receives them.
    pub fn since_export(&self, exported: &UpstreamCount) -> UpstreamCount {
        UpstreamCount {
            counters: UpstreamCounters {
                sent: growth(self.counters.sent, exported.counters.sent),
                skipped: growth(self.counters.skipped, exported.counters.skipped),
                ..UpstreamCounters::default()
            },
            failed: self.failed.since(&exported.failed),
            reported: self.reported.since(&exported.reported),
            ..UpstreamCount::default()
        }
    }

    /// Returns the counters without the gauges.
    pub fn without_gauges(&self) -> UpstreamCount {
        UpstreamCount {
            counters: self.counters.without_gauges(),
            dead_in: 0,
            draining_in: 0,
            ..self.clone()
        }
    }

    /// Counts datagrams that the kernel refused to send with this errno.
    pub fn fail(&mut self, errno: i32, datagrams: u64) {
        self.failed.count(errno, datagrams);
    }

    /// Records the result of sending datagrams to the upstream.
    pub fn record(&mut self, sent: Sent) {
        sent.record(
            &mut self.counters.sent,
            &mut self.failed,
            &mut self.reported,
        );
    }
}

/// The result of sending some datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel accepted this number of datagrams.
    Taken(u32),
    /// The kernel refused this number of datagrams with this errno.
    Refused(i32, u32),
    /// The kernel reported with this errno that an earlier datagram was lost (ICMP).
    Reported(i32),
}

impl Sent {
    fn record(self, taken: &mut u64, failed: &mut ErrnoCounts, reported: &mut ErrnoCounts) {
        match self {
            Sent::Taken(datagrams) => *taken += u64::from(datagrams),
            Sent::Refused(errno, datagrams) => failed.count(errno, u64::from(datagrams)),
            Sent::Reported(errno) => reported.count(errno, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Processes of the former version read and write these texts in a takeover.
    #[test]
    fn the_keys_of_a_takeover_stay() {
        let mut handler = HandlerCount::default();
        handler.counters.sent = 1;
        handler.failed.count(13, 2);
        handler.sessions.unreplied = 3;
        handler.sessions.evicted = 4;
        let mut upstream = UpstreamCount::default();
        upstream.counters.kernel_drops = 5;
        upstream.shadow.different = 6;
        upstream.dead_in = 7;
        let mut listener = ListenerCount::default();
        listener.counters.receive_errors = 8;

        let tally = r#"{"received":0,"handled":0,"in_flight":0,"dropped":{}}"#;
        let sessions = r#"{"open":0,"on_probation":3,"opened":0,"idle":0,"unanswered":0,"complete":0,"displaced":4,"broken":0,"inherited":0,"left":0,"one_way":0,"ports":0}"#;
        let former = format!(
            r#"{{"tally":{tally},"sent":1,"failed":[[13,2]],"reported":[],"replies":{tally},"sessions":{sessions}}}"#
        );
        assert_same(&handler, &former);
        assert_same(
            &upstream,
            r#"{"sent":0,"failed":[],"reported":[],"skipped":0,"replies":0,"kernel_drops":5,"sessions":0,"shadow":[0,6,0],"dead_in":7,"draining_in":0}"#,
        );
        assert_same(
            &listener,
            &format!(r#"{{"tally":{tally},"kernel_drops":0,"receive_errors":8}}"#),
        );
    }

    /// Asserts that the text is read as this count, and that the count is written with all keys and values of the text.
    fn assert_same<T>(count: &T, text: &str)
    where
        T: std::fmt::Debug + PartialEq + Serialize + serde::de::DeserializeOwned,
    {
        let former: Value = serde_json::from_str(text).unwrap();
        let written = serde_json::to_value(count).unwrap();
        assert!(
            has_all(&written, &former),
            "{written} lacks some of {former}"
        );
        assert_eq!(&serde_json::from_value::<T>(former).unwrap(), count);
    }

    /// Counters that are new have further keys, which the former version ignores.
    fn has_all(written: &Value, former: &Value) -> bool {
        match (written, former) {
            (Value::Object(written), Value::Object(former)) => former.iter().all(|(key, value)| {
                written
                    .get(key)
                    .is_some_and(|written| has_all(written, value))
            }),
            _ => written == former,
        }
    }

    /// A session that was opened or inherited is open, has ended, or has left.
    #[test]
    fn every_end_is_in_the_balance() {
        let ends = SessionCount::FIELDS
            .iter()
            .filter(|field| SessionCount::is_end(field));
        assert_eq!(ends.count(), 5);
        let count = SessionCount {
            open: 1,
            opened: 4,
            inherited: 2,
            idle: 1,
            broken: 2,
            left: 2,
            ..SessionCount::default()
        };
        assert!(count.balances());
        assert!(
            !SessionCount {
                evicted: 1,
                ..count
            }
            .balances()
        );
    }
}
