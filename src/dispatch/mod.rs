//! The pure heart: route table, outbox, verdicts, counters. No socket, thread, clock, random number or log line here.

pub mod handler;
pub mod outbox;
pub mod sink;
pub mod verdict;
