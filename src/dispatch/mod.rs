//! The pure core: route table, outbox, verdicts, counters, reply policy. Its functions take bytes and return values.
//!
//! Invariant: this room has no socket, thread, clock, random source or log line. The same code therefore runs in a
//! worker, in a unit test, in the seeded simulation and in `explain`.

pub mod counters;
pub mod dispatcher;
pub mod expectation;
pub mod handler;
pub mod histogram;
pub mod id;
mod latency;
pub mod ledger;
pub mod limit;
pub mod listener_routing;
pub mod maglev;
pub mod outbox;
pub mod passive_health;
pub mod pool;
pub mod proxy_header;
pub mod random;
pub mod ranges;
pub mod rate;
pub mod reply_policy;
pub mod route_table;
pub mod saved_state;
pub mod sessions;
pub mod sink;
pub mod tap;
pub mod time;
mod timers;
pub mod udp_header;
pub mod upstream_event;
pub mod verdict;
