//! Parses `health`: the probes of the upstreams, and the behavior when none is alive.

use super::schema::{
    EXPECT, EXPECT_HEX, FAIL_OPEN, FALL, HEALTH, HEALTH_SETTINGS, INTERVAL, PROBE, RISE, SEND,
    SEND_HEX, TIMEOUT,
};
use crate::config::kind::{Optional, Setting};
use crate::config::section::Section;
use crate::config::upstream::{ProbeOver, ProbeSettings};

/// The checked settings of `health`.
#[derive(Debug)]
pub struct HealthSettings {
    /// The probe, if one is configured.
    pub probe: Option<ProbeSettings>,
    /// Whether all upstreams are used when none is alive.
    pub fail_open: bool,
}

/// Parses the key `health`. Returns `None` if it is wrong; the problem is reported in `section`.
pub fn read(section: &mut Section<'_>) -> Option<HealthSettings> {
    match section.raw(&HEALTH) {
        None => Some(HealthSettings {
            probe: None,
            fail_open: FAIL_OPEN.default_value(),
        }),
        Some(value) => section.table(&HEALTH, value, table),
    }
}

fn table(section: &mut Section<'_>) -> Option<HealthSettings> {
    let mut others = HEALTH_SETTINGS
        .iter()
        .map(|setting| setting.key())
        .filter(|key| *key != FAIL_OPEN.key);
    let only_fail_open = section.has(FAIL_OPEN.key) && !others.any(|key| section.has(key));
    let fail_open = section.get(&FAIL_OPEN);
    if only_fail_open {
        return Some(HealthSettings {
            probe: None,
            fail_open,
        });
    }
    section.report_absent(PROBE.key);
    let over = section.find(&PROBE);
    let send = bytes(section, &SEND, &SEND_HEX);
    let expect = bytes(section, &EXPECT, &EXPECT_HEX);
    let interval = section.get(&INTERVAL);
    let timeout = section.get_capped(&TIMEOUT, interval);
    let rise = section.get(&RISE);
    let fall = section.get(&FALL);
    if timeout > interval {
        let message = format!(
            "is longer than `interval`, {interval:?}: the next probe would begin before this one ends"
        );
        section.problem(
            TIMEOUT.key,
            message,
            "write a shorter timeout, or a longer interval",
        );
    }
    if over == Some(ProbeOver::Udp) && !section.has(SEND.key) && !section.has(SEND_HEX.key) {
        let message = "a UDP probe needs a payload";
        section.problem(
            SEND.key,
            message,
            "add send = \"...\" or send_hex = \"...\": a request that the upstream replies to",
        );
    }
    Some(HealthSettings {
        probe: Some(ProbeSettings {
            over: over?,
            send: send.unwrap_or_default(),
            expect: expect.unwrap_or_default(),
            interval,
            timeout,
            rise,
            fall,
        }),
        fail_open,
    })
}

/// Parses bytes that are written as text under one key, or as hex digits under another.
fn bytes(
    section: &mut Section<'_>,
    text: &Setting<Vec<u8>, Optional>,
    hex: &Setting<Vec<u8>, Optional>,
) -> Option<Vec<u8>> {
    section.at_most_one(&[text.key, hex.key]);
    let from_text = section.find(text);
    let from_hex = section.find(hex);
    from_text.or(from_hex)
}
