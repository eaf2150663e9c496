//! Finds contradictions between the keys of a forwarder and of its upstreams. Each one is reported at the value to
//! change, with the reason and a correction.

use std::collections::HashMap;
use std::ops::Range;

use super::schema::{
    BACKUP, HASH_ON, HEALTH, PICK, REPLIES, REPLIES_MAX, REQUESTS_MAX, SESSION_IDLE, SESSION_MAX,
    SESSION_SHARE, SESSION_UNREPLIED, SHADOW, SOURCE, SPREAD, UPSTREAMS, WEIGHT,
};
use super::upstream_entry::UpstreamEntry;
use super::{Choice, RepliesSetting, Settings, Spread};
use crate::config::limits::{LEGS_MAX, UPSTREAMS_MAX};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::upstream::{Egress, SendFrom, Upstream, UpstreamHost};
use crate::dispatch::pool::Pick;
use crate::handlers::reply_settings::{ALLOW_LOW_PORTS, REPLY_TO_GROUPS};

/// The keys that need sessions.
const OF_SESSIONS: [&str; 4] = [
    SESSION_IDLE.key,
    SESSION_MAX.key,
    SESSION_SHARE.key,
    REQUESTS_MAX.key,
];
/// The keys that need replies.
const OF_REPLIES: [&str; 4] = [
    SESSION_UNREPLIED.key,
    REPLIES_MAX.key,
    ALLOW_LOW_PORTS.key,
    REPLY_TO_GROUPS.key,
];

const ALL_GET_EVERY_DATAGRAM: &str =
    "has no effect with pick = \"all\", where every upstream gets every datagram";

/// Reports all contradictions in `section`.
pub fn report(
    section: &mut Section<'_>,
    settings: &Settings,
    entries: &[UpstreamEntry],
    written: Option<RepliesSetting>,
) {
    if entries.len() > UPSTREAMS_MAX {
        section.problem(
            UPSTREAMS.key,
            format!("more than {UPSTREAMS_MAX}, the limit of one handler"),
            "",
        );
    }
    check_legs(section, settings);
    check_repeated(section, &settings.upstreams);
    check_picks(section, settings, written);
    check_absent_sessions(section, settings, entries);
    check_groups(section, settings, entries);
    check_sources(section, settings, entries);
    check_ineffective_roles(section, settings, entries);
    check_remaining_upstreams(section, settings, entries);
}

/// Checks the number of legs. If a session may use all upstreams, it stores one leg for each.
fn check_legs(section: &mut Section<'_>, settings: &Settings) {
    let is_wide = settings.has_sessions()
        && (settings.choice == Choice::All || settings.spread == Spread::Datagram);
    let legs = u64::from(settings.limits.max) * settings.upstreams.len() as u64;
    if is_wide && legs > LEGS_MAX {
        let message = format!(
            "{} sessions with {} upstreams each need {legs} entries, more than {LEGS_MAX}",
            settings.limits.max,
            settings.upstreams.len()
        );
        section.problem(
            SESSION_MAX.key,
            message,
            "write a smaller session_max, or fewer upstreams",
        );
    }
}

/// Reports an upstream that is listed twice: it would get every datagram twice, which a loop amplifies. The same
/// address with different options is no repetition.
fn check_repeated(section: &mut Section<'_>, upstreams: &[Upstream]) {
    let mut seen: HashMap<(&UpstreamHost, u16, &Egress), &Upstream> = HashMap::new();
    for upstream in upstreams {
        if let Some(first) =
            seen.insert((&upstream.host, upstream.port, &upstream.egress), upstream)
        {
            let problem = Problem::error(
                upstream.at.clone(),
                format!("`upstreams`: {upstream} is listed twice"),
            );
            section.report(
                problem
                    .and_at(first.at.clone(), "first here")
                    .hint("leave one out"),
            );
        }
    }
}

fn check_picks(section: &mut Section<'_>, settings: &Settings, written: Option<RepliesSetting>) {
    if section.has(HASH_ON.key) && settings.choice != Choice::One(Pick::Hash) {
        section.problem(
            HASH_ON.key,
            "has an effect only with pick = \"hash\"",
            "add pick = \"hash\", or leave it out",
        );
    }
    if section.has(SPREAD.key) && settings.choice == Choice::All {
        section.problem(SPREAD.key, ALL_GET_EVERY_DATAGRAM, "leave it out");
    }
    if settings.choice == Choice::One(Pick::LeastSessions) && !settings.has_sessions() {
        let message = "there are no sessions to count if no replies are sent back and an upstream is picked for each datagram";
        section.problem(
            PICK.key,
            message,
            "add spread = \"session\", or write pick = \"round_robin\"",
        );
    }
    if matches!(written, Some(RepliesSetting::First | RepliesSetting::All))
        && settings.choice != Choice::All
    {
        let message = "chooses among the replies of several upstreams, and has an effect only with pick = \"all\"";
        section.problem(REPLIES.key, message, "write true");
    }
}

/// Reports keys about sessions or replies if the handler has none.
fn check_absent_sessions(
    section: &mut Section<'_>,
    settings: &Settings,
    entries: &[UpstreamEntry],
) {
    if settings.has_replies() {
        return;
    }
    let keeps = |entry: &UpstreamEntry| entry.upstream.egress.from == SendFrom::Keep;
    let can_reply = !entries
        .iter()
        .any(|entry| entry.upstream.is_group() || keeps(entry));
    let reply_hint = if can_reply {
        "add replies = true, or leave it out"
    } else {
        "leave it out"
    };
    for key in OF_REPLIES
        .into_iter()
        .filter(|key| section.has(key))
        .collect::<Vec<_>>()
    {
        section.problem(
            key,
            "has an effect only if replies are sent back",
            reply_hint,
        );
    }
    if settings.has_sessions() {
        return;
    }
    let (message, hint) = match settings.choice {
        Choice::All => (
            "there are no sessions if no replies are sent back and every upstream gets every datagram",
            reply_hint,
        ),
        Choice::One(_) if can_reply => (
            NO_SESSIONS,
            "add replies = true or spread = \"session\", or leave it out",
        ),
        Choice::One(_) => (NO_SESSIONS, "add spread = \"session\", or leave it out"),
    };
    for key in OF_SESSIONS
        .into_iter()
        .filter(|key| section.has(key))
        .collect::<Vec<_>>()
    {
        section.problem(key, message, hint);
    }
}

const NO_SESSIONS: &str =
    "there are no sessions if no replies are sent back and an upstream is picked for each datagram";

/// Reports groups where one upstream is picked or replies are expected. A group stands for many receivers, and sends no
/// replies.
fn check_groups(section: &mut Section<'_>, settings: &Settings, entries: &[UpstreamEntry]) {
    let picked = entries
        .iter()
        .filter(|entry| entry.shadow.is_none())
        .count();
    for UpstreamEntry {
        upstream, shadow, ..
    } in entries.iter().filter(|entry| entry.upstream.is_group())
    {
        let at = upstream.at.clone();
        if settings.choice != Choice::All && shadow.is_none() && picked > 1 {
            let message = format!(
                "{upstream} is a multicast group with any number of receivers, and cannot be one of several to pick from"
            );
            section.problem_at(
                UPSTREAMS.key,
                at,
                message,
                "add pick = \"all\", or give the group a handler of its own",
            );
        } else if settings.has_replies() {
            let message = format!("{upstream} is a multicast group, which sends no replies");
            section.problem_at(
                UPSTREAMS.key,
                at,
                message,
                "add replies = false, or give the group a handler of its own",
            );
        }
    }
    if settings.monitor.probe.is_some() && settings.upstreams.iter().all(Upstream::is_group) {
        section.problem(
            HEALTH.key,
            "a multicast group cannot be probed",
            "leave it out",
        );
    }
}

/// Reports source addresses that no reply could come back to.
fn check_sources(section: &mut Section<'_>, settings: &Settings, entries: &[UpstreamEntry]) {
    if !settings.has_replies() {
        return;
    }
    for UpstreamEntry {
        upstream, source, ..
    } in entries
    {
        let at = source.clone().unwrap_or(upstream.at.clone());
        match upstream.egress.from {
            SendFrom::Keep => {
                let message =
                    "replies would go to the sender directly and not come back to this host";
                section.problem_at(
                    SOURCE.key,
                    at,
                    message,
                    "add replies = false, or write \"own\"",
                );
            }
            SendFrom::Address(from) if from.port() > 0 => {
                let hint = format!(
                    "leave the port out: \"{}\"; or add replies = false",
                    from.ip()
                );
                section.problem_at(SOURCE.key, at, "each session needs a port of its own", hint);
            }
            SendFrom::Own | SendFrom::Address(_) => {}
        }
    }
}

/// Reports weights and backups that have no effect on the choice of an upstream.
fn check_ineffective_roles(
    section: &mut Section<'_>,
    settings: &Settings,
    entries: &[UpstreamEntry],
) {
    for entry in entries {
        let weight = entry.weight.clone().filter(|_| entry.shadow.is_none());
        match (weight, settings.choice) {
            (Some(at), Choice::All) => {
                section.problem_at(WEIGHT.key, at, ALL_GET_EVERY_DATAGRAM, "leave it out");
            }
            (Some(at), Choice::One(Pick::FirstAlive)) => {
                let message = "has no effect with pick = \"first_alive\", where the order in the file decides";
                section.problem_at(WEIGHT.key, at, message, "leave it out");
            }
            _ => {}
        }
        if let Some(at) = entry
            .backup
            .clone()
            .filter(|_| settings.choice == Choice::All)
        {
            section.problem_at(BACKUP.key, at, ALL_GET_EVERY_DATAGRAM, "leave it out");
        }
    }
}

/// Reports shadows, backups and drains that leave no upstream to use.
fn check_remaining_upstreams(
    section: &mut Section<'_>,
    settings: &Settings,
    entries: &[UpstreamEntry],
) {
    let first_of_all = |flag: fn(&UpstreamEntry) -> &Option<Range<usize>>| {
        let mut picked = entries
            .iter()
            .filter(|entry| entry.shadow.is_none())
            .peekable();
        let first = picked.peek().and_then(|entry| flag(entry).clone());
        first.filter(|_| picked.all(|entry| flag(entry).is_some()))
    };
    if entries.iter().all(|entry| entry.shadow.is_some()) {
        let at = entries
            .first()
            .and_then(|entry| entry.shadow.clone())
            .unwrap_or(section.at());
        let message = match entries.len() {
            1 => "the only upstream is a shadow, so there is nothing to copy",
            _ => "every upstream is a shadow, so there is nothing to copy",
        };
        section.problem_at(
            SHADOW.key,
            at,
            message,
            "at least one upstream must not be a shadow",
        );
    }
    if let Some(at) = first_of_all(|entry| &entry.backup).filter(|_| settings.choice != Choice::All)
    {
        let message = "every upstream is a backup, so there is none to replace";
        section.problem_at(
            BACKUP.key,
            at,
            message,
            "at least one upstream must not be a backup",
        );
    }
    if let Some(at) = first_of_all(|entry| &entry.drain) {
        let problem = Problem::warning(
            at,
            "`drain`: every upstream drains, so no new session is forwarded",
        );
        section.report(problem.hint("leave it out at one upstream at least"));
    }
}
