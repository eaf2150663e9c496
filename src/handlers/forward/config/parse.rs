//! Parses a `[handler.NAME]` with `kind = "forward"` into [`Settings`]. Every key is parsed, even after a problem.
//! `validate.rs` checks contradictions between keys, once all of them could be parsed.

use super::health;
use super::schema::{
    HASH_ON, LENGTH, OFFSET, PICK, REPLIES, REPLIES_MAX, REQUESTS_MAX, RESOLVE_INTERVAL,
    RESOLVE_OPTIONAL, SESSION_IDLE, SESSION_MAX, SESSION_SHARE, SESSION_UNREPLIED, SPREAD,
    UPSTREAMS,
};
use super::upstream_entry::{self, UpstreamEntry};
use super::validate;
use super::{Choice, HashOn, Limits, Replies, RepliesSetting, Settings, Spread};
use crate::config::section::Section;
use crate::config::upstream::{MonitorSettings, SendFrom};
use crate::handlers::reply_settings;

/// Parses the table of the handler. Returns `None` if it is wrong; the problems are reported in `section`.
pub fn read(section: &mut Section<'_>) -> Option<Settings> {
    let entries = read_entries(section);
    let pick = section.find(&PICK);
    let hash_on = read_hash_on(section);
    let spread = section.find(&SPREAD);
    let written = section.find(&REPLIES);
    let limits = read_limits(section);
    let health = health::read(section);
    let resolve_interval = section.get(&RESOLVE_INTERVAL);
    let resolve_optional = section.get(&RESOLVE_OPTIONAL);
    let reply_policy = reply_settings::read(section);

    // Contradictions are not checked if a key that decides about them could not be parsed.
    let is_unread = |key: &str, is_read: bool| section.has(key) && !is_read;
    if is_unread(PICK.key, pick.is_some())
        || is_unread(SPREAD.key, spread.is_some())
        || is_unread(REPLIES.key, written.is_some())
    {
        return None;
    }
    let entries = entries?;
    let choice = pick.unwrap_or(PICK.default_value());
    let replies = decide_replies(written, choice, &entries);
    let default_spread = if replies == Replies::None {
        Spread::Datagram
    } else {
        Spread::Session
    };
    let health = health?;
    let settings = Settings {
        upstreams: entries.iter().map(|entry| entry.upstream.clone()).collect(),
        upstream_options: entries.iter().map(|entry| entry.options).collect(),
        choice,
        hash_on: hash_on.unwrap_or(HASH_ON.default_value()),
        spread: spread.unwrap_or(default_spread),
        replies,
        limits,
        reply_policy,
        monitor: MonitorSettings {
            probe: health.probe,
            resolve_interval,
            resolve_optional,
        },
        fail_open: health.fail_open,
    };
    validate::report(section, &settings, &entries, written);
    Some(settings)
}

/// Parses all upstreams. Returns `None` if one of them is wrong.
fn read_entries(section: &mut Section<'_>) -> Option<Vec<UpstreamEntry>> {
    let elements = section.require_values(&UPSTREAMS)?;
    let count = elements.len();
    let entries: Vec<UpstreamEntry> = elements
        .into_iter()
        .filter_map(|element| upstream_entry::read(section, element))
        .collect();
    (entries.len() == count).then_some(entries)
}

/// Returns which replies are sent back. `written` is the value of the key `replies`.
fn decide_replies(
    written: Option<RepliesSetting>,
    choice: Choice,
    entries: &[UpstreamEntry],
) -> Replies {
    match (written, choice) {
        (Some(RepliesSetting::No), _) => Replies::None,
        (None, _) if !replies_by_default(entries, choice) => Replies::None,
        (Some(RepliesSetting::All), _) | (_, Choice::One(_)) => Replies::All,
        (_, Choice::All) => Replies::First,
    }
}

/// Returns the default of `replies`. It is `false` if several upstreams would reply to each request, or if no reply can
/// come back.
fn replies_by_default(entries: &[UpstreamEntry], choice: Choice) -> bool {
    let all_groups = entries.iter().all(|entry| entry.upstream.is_group());
    let any_keeps = entries
        .iter()
        .any(|entry| entry.upstream.egress.from == SendFrom::Keep);
    choice != Choice::All && !all_groups && !any_keeps
}

fn read_hash_on(section: &mut Section<'_>) -> Option<HashOn> {
    let value = section.raw(&HASH_ON)?;
    if !value.is_table() {
        return section.parse(&HASH_ON, value);
    }
    section.table(&HASH_ON, value, |section| {
        let offset = section.get(&OFFSET);
        let length = section.get(&LENGTH);
        Some(HashOn::Payload { offset, length })
    })
}

fn read_limits(section: &mut Section<'_>) -> Limits {
    let idle = section.get(&SESSION_IDLE);
    let unreplied = section.get_capped(&SESSION_UNREPLIED, idle);
    let max = section.get(&SESSION_MAX);
    let share = section.find(&SESSION_SHARE).unwrap_or((max / 4).max(1));
    let replies_max = section.find(&REPLIES_MAX);
    let requests_max = section.find(&REQUESTS_MAX);
    if unreplied > idle {
        let message = format!(
            "is longer than `session_idle`, {idle:?}: sessions without a reply would live longer than others"
        );
        section.problem(SESSION_UNREPLIED.key, message, "write a shorter duration");
    }
    if share > max {
        section.problem(
            SESSION_SHARE.key,
            format!("is more than `session_max`, {max}"),
            "write a smaller number, or leave it out",
        );
    }
    Limits {
        idle,
        unreplied,
        max,
        share,
        replies_max,
        requests_max,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;
    use std::time::Duration;

    use super::super::{Sample, UpstreamOptions};
    use super::*;
    use crate::config::Config;
    use crate::config::kind::Kind;
    use crate::config::upstream::{Egress, ProbeOver, ProbeSettings};
    use crate::config::value::Rate;
    use crate::dispatch::pool::Pick;
    use crate::handlers::forward::Forward;

    thread_local! {
        static SEEN: RefCell<Option<Settings>> = const { RefCell::new(None) };
    }

    const KIND: Kind = Kind {
        read: |section| {
            let settings = read(section)?;
            SEEN.set(Some(settings.clone()));
            Some(Box::new(Forward::new(settings)))
        },
        ..crate::handlers::forward::KIND
    };

    fn settings(lines: &str) -> Settings {
        let head = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\nkind = \"forward\"\n";
        let config = Config::parse(Path::new("u.toml"), &format!("{head}{lines}"), &[KIND]);
        config.unwrap_or_else(|problems| panic!("{problems}"));
        SEEN.take().expect("settings")
    }

    /// Values that apply if the file has no key.
    #[test]
    fn defaults() {
        let read = settings("upstreams = \"10.0.0.1:53\"");
        assert_eq!(read.choice, Choice::One(Pick::RoundRobin));
        assert_eq!(
            (read.hash_on, read.spread, read.replies),
            (HashOn::Source, Spread::Session, Replies::All)
        );
        let (idle, unreplied) = (Duration::from_secs(60), Duration::from_secs(5));
        let (replies_max, requests_max) = (None, None);
        assert_eq!(
            read.limits,
            Limits {
                idle,
                unreplied,
                max: 65_536,
                share: 16_384,
                replies_max,
                requests_max
            }
        );
        let resolve_interval = Duration::from_secs(30);
        assert_eq!(
            read.monitor,
            MonitorSettings {
                probe: None,
                resolve_interval,
                resolve_optional: false
            }
        );
        assert!(read.fail_open);
        assert_eq!(
            read.reply_policy,
            crate::dispatch::reply_policy::ReplyPolicy::default()
        );
        assert_eq!(read.upstreams[0].egress, Egress::default());
        assert!(read.upstreams[0].egress.loop_back);
        assert_eq!(
            read.upstream_options,
            settings("upstreams = { address = \"10.0.0.1:53\" }").upstream_options
        );
    }

    /// Every key of an upstream is parsed.
    #[test]
    fn a_full_upstream() {
        let read = settings(
            "replies = false\nupstreams = [\"a:1\", { address = \"[2001:db8::1]:53\", weight = 7, sample = \"1/100\", \
             ttl = 9, dscp = \"ef\", source = \"[2001:db8::2]:5353\", proxy = \"v2\", max_rate = \"1000/m\", \
             interface = \"eth0\", drain = true, backup = true }, { address = \"239.1.1.1:5\", loop = false, shadow = true }]",
        );
        let from = SendFrom::Address("[2001:db8::2]:5353".parse().expect("an address"));
        let interface = Some("eth0".to_owned());
        let egress = Egress {
            ttl: Some(9),
            dscp: Some(46),
            from,
            interface,
            loop_back: true,
        };
        assert_eq!(read.upstreams[1].egress, egress);
        let expected = UpstreamOptions {
            weight: 7,
            sample: Some(Sample {
                taken: 1,
                each: 100,
            }),
            proxy: true,
            max_rate: Some(Rate {
                count: 1_000,
                per: Duration::from_secs(60),
            }),
            drain: true,
            backup: true,
            shadow: false,
        };
        assert_eq!(read.upstream_options[1], expected);
        assert!(!read.upstreams[2].egress.loop_back && read.upstream_options[2].shadow);
    }

    /// `replies` and `spread`, both given and by default.
    #[test]
    fn replies_and_spread() {
        for (lines, replies, spread) in [
            ("upstreams = \"a:1\"", Replies::All, Spread::Session),
            (
                "upstreams = \"a:1\"\nreplies = true\nspread = \"datagram\"",
                Replies::All,
                Spread::Datagram,
            ),
            (
                "upstreams = \"a:1\"\nreplies = false",
                Replies::None,
                Spread::Datagram,
            ),
            (
                "upstreams = \"a:1\"\nreplies = false\nspread = \"session\"",
                Replies::None,
                Spread::Session,
            ),
            (
                "upstreams = \"a:1\"\npick = \"all\"",
                Replies::None,
                Spread::Datagram,
            ),
            (
                "upstreams = \"a:1\"\npick = \"all\"\nreplies = true",
                Replies::First,
                Spread::Session,
            ),
            (
                "upstreams = \"a:1\"\npick = \"all\"\nreplies = \"first\"",
                Replies::First,
                Spread::Session,
            ),
            (
                "upstreams = \"a:1\"\npick = \"all\"\nreplies = \"all\"",
                Replies::All,
                Spread::Session,
            ),
            (
                "upstreams = \"239.1.1.1:1\"",
                Replies::None,
                Spread::Datagram,
            ),
            (
                "upstreams = [{ address = \"a:1\", source = \"keep\" }, \"b:1\"]",
                Replies::None,
                Spread::Datagram,
            ),
        ] {
            let read = settings(lines);
            assert_eq!((read.replies, read.spread), (replies, spread), "{lines}");
        }
    }

    /// Defaults that depend on other keys.
    #[test]
    fn defaults_that_follow() {
        let read = settings("upstreams = \"a:1\"\nsession_idle = \"2s\"\nsession_max = 3");
        assert_eq!(
            (read.limits.unreplied, read.limits.share),
            (Duration::from_secs(2), 1)
        );
        let read =
            settings("upstreams = \"a:1\"\nhealth = { probe = \"tcp\", interval = \"500ms\" }");
        assert_eq!(
            read.monitor.probe.map(|probe| probe.timeout),
            Some(Duration::from_millis(500))
        );
    }

    /// `health`, `hash_on` as a table, and the remaining keys.
    #[test]
    fn tables() {
        let read = settings(
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = { offset = 2, length = 8 }\nresolve_interval = \"0s\"\n\
             resolve_optional = true\nttl = 3\nallow_low_ports = true\nreply_to_groups = true\n\
             health = { probe = \"udp\", send_hex = \"00 ff\", expect = \"ok\", interval = \"1s\", timeout = \"1s\", \
             rise = 1, fall = 1, fail_open = false }",
        );
        assert_eq!(
            read.hash_on,
            HashOn::Payload {
                offset: 2,
                length: 8
            }
        );
        let probe = ProbeSettings {
            over: ProbeOver::Udp,
            send: vec![0, 255],
            expect: b"ok".to_vec(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
        };
        let resolve_interval = Duration::ZERO;
        assert_eq!(
            read.monitor,
            MonitorSettings {
                probe: Some(probe),
                resolve_interval,
                resolve_optional: true
            }
        );
        assert!(
            !read.fail_open
                && read.reply_policy.allow_low_ports
                && read.reply_policy.reply_to_groups
        );
        assert_eq!(read.reply_policy.ttl, Some(3));
    }
}
