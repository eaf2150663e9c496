//! Reads a `[handler.NAME]` with `kind = "forward"` into [`Settings`]. Every key is read before anything is given up; what
//! the keys say of each other is looked at in `contradictions.rs`, once all of them could be read.

use std::time::Duration;

use super::contradictions;
use super::entry::{self, Entry};
use super::health;
use super::keys::{COUNT_MAX, HASH_ON, LENGTH_MAX, OFFSET_MAX, PAYLOAD, PICKS, SESSIONS_MAX, SPREADS};
use super::settings::{Choice, HashOn, Limits, Replies, Settings, Spread};
use crate::config::section::Section;
use crate::config::upstream::{SendFrom, Upkeep};
use crate::config::value::{self, Value, placed};
use crate::config::words::{Mistake, did_you_mean};
use crate::dispatch::pool::Pick;
use crate::handlers::answering;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const IDLE: Duration = Duration::from_secs(60);
const PROBATION: Duration = Duration::from_secs(5);
const SESSIONS: u32 = 65_536;
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

/// What `replies` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `false`
    No,
    /// `true`
    Yes,
    /// `"first"`
    First,
    /// `"all"`
    All,
}

/// Reads the table; `None` where it is wrong, which is reported.
pub fn read(section: &mut Section<'_>) -> Option<Settings> {
    let entries = read_entries(section);
    let pick = section.optional("pick", value::choice(&PICKS));
    let hash_on = read_hash_on(section);
    let spread = section.optional("spread", value::choice(&SPREADS));
    let said = section.optional("replies", placed(replies));
    let limits = read_limits(section);
    let health = health::read(section);
    let resolve_interval = section.or("resolve_interval", value::duration_or_zero(SECOND..=DAY), RESOLVE_INTERVAL);
    let resolve_optional = section.or("resolve_optional", value::boolean, false);
    let answering = answering::read(section);

    // What cannot be read could contradict anything.
    let is_unread = |key: &str, is_read: bool| section.has(key) && !is_read;
    if is_unread("pick", pick.is_some())
        || is_unread("spread", spread.is_some())
        || is_unread("replies", said.is_some())
    {
        return None;
    }
    let entries = entries?;
    let choice = pick.unwrap_or(Choice::One(Pick::RoundRobin));
    let said = said.map(|said| said.value);
    let replies = match (said, choice) {
        (Some(Said::No), _) => Replies::None,
        (None, _) if !answers_by_default(&entries, choice) => Replies::None,
        (Some(Said::All), _) | (_, Choice::One(_)) => Replies::All,
        (_, Choice::All) => Replies::First,
    };
    let default_spread = if replies == Replies::None { Spread::Datagram } else { Spread::Session };
    let health = health?;
    let settings = Settings {
        upstreams: entries.iter().map(|entry| entry.upstream.clone()).collect(),
        receivers: entries.iter().map(|entry| entry.receiver).collect(),
        choice,
        hash_on: hash_on.unwrap_or(HashOn::Source),
        spread: spread.unwrap_or(default_spread),
        replies,
        limits,
        answering,
        upkeep: Upkeep { probe: health.probe, resolve_interval, resolve_optional },
        fail_open: health.fail_open,
    };
    contradictions::report(section, &settings, &entries, said);
    Some(settings)
}

/// All upstreams; `None` where one of them is wrong.
fn read_entries(section: &mut Section<'_>) -> Option<Vec<Entry>> {
    let elements = section.required_values("upstreams")?;
    let count = elements.len();
    let entries: Vec<Entry> = elements.into_iter().filter_map(|element| entry::read(section, element)).collect();
    (entries.len() == count).then_some(entries)
}

/// Whether answers go back where the file does not say it: not where several would come, and not where none can.
fn answers_by_default(entries: &[Entry], choice: Choice) -> bool {
    let all_groups = entries.iter().all(|entry| entry.upstream.is_group());
    let any_keeps = entries.iter().any(|entry| entry.upstream.leave.from == SendFrom::Keep);
    choice != Choice::All && !all_groups && !any_keeps
}

fn replies(value: Value<'_>) -> Result<Said, Mistake> {
    let wanted = "true, false, \"first\" or \"all\"";
    match value.text(wanted) {
        Ok("first") => Ok(Said::First),
        Ok("all") => Ok(Said::All),
        Ok(text @ ("true" | "false")) => Err(value.expected(wanted).hint(format!("write {text}, without quotes"))),
        Ok(text) => Err(value.expected(wanted).maybe_hint(did_you_mean(text, ["first", "all"]))),
        Err(_) => match value::boolean(value) {
            Ok(true) => Ok(Said::Yes),
            Ok(false) => Ok(Said::No),
            Err(_) => Err(value.expected(wanted)),
        },
    }
}

fn read_hash_on(section: &mut Section<'_>) -> Option<HashOn> {
    let value = section.raw("hash_on")?;
    if !value.is_table() {
        let words = value::choice(&HASH_ON);
        return section.parse("hash_on", value, |value| match value.text("") {
            Ok(_) => words(value),
            Err(_) => Err(value.expected("source, source_address, destination or a table { offset, length }")),
        });
    }
    section.table("hash_on", value, PAYLOAD, |section| {
        let offset = section.or("offset", value::integer(0..=OFFSET_MAX), 0);
        let length = section.or("length", value::integer(1..=LENGTH_MAX), 4);
        Some(HashOn::Payload { offset, length })
    })
}

fn read_limits(section: &mut Section<'_>) -> Limits {
    let idle = section.or("session_idle", value::duration_in(SECOND..=DAY), IDLE);
    let probation = section.or("session_probation", value::duration_in(SECOND..=DAY), PROBATION.min(idle));
    let max = section.or("session_max", value::integer(1..=SESSIONS_MAX), SESSIONS);
    let share = section.or("session_share", value::integer(1..=SESSIONS_MAX), (max / 4).max(1));
    let replies_max = section.optional("replies_max", value::integer(1..=COUNT_MAX));
    let requests_max = section.optional("requests_max", value::integer(1..=COUNT_MAX));
    if probation > idle {
        let message = format!("is longer than `session_idle`, {idle:?}: who never answered would stay longest");
        section.problem("session_probation", message, "write a shorter one");
    }
    if share > max {
        section.problem("session_share", format!("is more than `session_max`, {max}"), "write less, or leave it out");
    }
    Limits { idle, probation, max, share, replies_max, requests_max }
}
