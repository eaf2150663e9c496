//! Parses `health`: how upstreams are probed, and what happens when none is alive.

use std::time::Duration;

use super::schema::{HEALTH, PROBE_BYTES_MAX, STREAK_MAX};
use crate::config::diagnostics::Mistake;
use crate::config::section::Section;
use crate::config::upstream::{ProbeOver, ProbeSettings};
use crate::config::value::{self, Value};

const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(86_400);

/// Checked settings of `health`.
#[derive(Debug)]
pub struct HealthSettings {
    /// The probe, if one is configured.
    pub probe: Option<ProbeSettings>,
    /// Whether all upstreams are used when none is alive.
    pub fail_open: bool,
}

/// Parses the key `health`. Returns `None` if it is wrong; the problem is reported in `section`.
pub fn read(section: &mut Section<'_>) -> Option<HealthSettings> {
    match section.raw("health") {
        None => Some(HealthSettings {
            probe: None,
            fail_open: true,
        }),
        Some(value) => section.table("health", value, HEALTH, table),
    }
}

fn table(section: &mut Section<'_>) -> Option<HealthSettings> {
    let only_fail_open = section.has("fail_open")
        && HEALTH
            .iter()
            .all(|one| one.key == "fail_open" || !section.has(one.key));
    let fail_open = section.or("fail_open", value::boolean, true);
    if only_fail_open {
        return Some(HealthSettings {
            probe: None,
            fail_open,
        });
    }
    let over = section.required(
        "probe",
        value::choice(&[("udp", ProbeOver::Udp), ("tcp", ProbeOver::Tcp)]),
    );
    let send = bytes(section, "send", "send_hex");
    let expect = bytes(section, "expect", "expect_hex");
    let interval = section.or(
        "interval",
        value::duration_in(INTERVAL_MIN..=LONGEST),
        INTERVAL,
    );
    let timeout = section.or(
        "timeout",
        value::duration_in(TIMEOUT_MIN..=LONGEST),
        TIMEOUT.min(interval),
    );
    let rise = section.or("rise", value::integer(1..=STREAK_MAX), 2);
    let fall = section.or("fall", value::integer(1..=STREAK_MAX), 3);
    if timeout > interval {
        let message =
            format!("is longer than `interval`, {interval:?}: probes would overtake each other");
        section.problem(
            "timeout",
            message,
            "write a shorter one, or a longer interval",
        );
    }
    if over == Some(ProbeOver::Udp) && !section.has("send") && !section.has("send_hex") {
        let message = "a datagram that asks has to say something";
        section.problem(
            "send",
            message,
            "add send = \"...\" or send_hex = \"...\": what the upstream answers",
        );
    }
    let (send, expect) = (send.unwrap_or_default(), expect.unwrap_or_default());
    Some(HealthSettings {
        probe: Some(ProbeSettings {
            over: over?,
            send,
            expect,
            interval,
            timeout,
            rise,
            fall,
        }),
        fail_open,
    })
}

/// Parses bytes that are written as text under one key, or as hex digits under another.
fn bytes(section: &mut Section<'_>, text: &str, hex: &str) -> Option<Vec<u8>> {
    section.at_most_one(&[text, hex]);
    let from_text = section.optional(text, |value| some(value::string(value)?.into_bytes()));
    let from_hex = section.optional(hex, |value: Value<'_>| some(value::hex(value)?));
    from_text.or(from_hex)
}

fn some(bytes: Vec<u8>) -> Result<Vec<u8>, Mistake> {
    match bytes.len() {
        0 => Err(Mistake::new("is empty").hint("leave it out")),
        len if len > PROBE_BYTES_MAX => Err(Mistake::new(format!(
            "{len} bytes, more than {PROBE_BYTES_MAX}"
        ))),
        _ => Ok(bytes),
    }
}
