//! Parses one upstream, written as text or as a table, and reports contradictions within it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::UpstreamOptions;
use super::schema::{
    ADDRESS, BACKUP, DRAIN, DSCP, INTERFACE, LOOP, MAX_RATE, PROXY, SAMPLE, SHADOW, SOURCE,
    UPSTREAM_TTL, UPSTREAMS, WEIGHT,
};
use crate::config::Placed;
use crate::config::kind::Setting;
use crate::config::section::Section;
use crate::config::upstream::{SendFrom, Upstream, UpstreamHost};
use crate::config::value::Value;

/// A parsed upstream, with the places in the file of keys that other keys may contradict.
#[derive(Debug)]
pub struct UpstreamEntry {
    /// The address of the upstream, and options of its sockets.
    pub upstream: Upstream,
    /// The further options of the upstream.
    pub options: UpstreamOptions,
    /// The byte range of `weight` in the file.
    pub weight: Option<Range<usize>>,
    /// The byte range of `source` in the file.
    pub source: Option<Range<usize>>,
    /// The byte range of `drain = true` in the file.
    pub drain: Option<Range<usize>>,
    /// The byte range of `backup = true` in the file.
    pub backup: Option<Range<usize>>,
    /// The byte range of `shadow = true` in the file.
    pub shadow: Option<Range<usize>>,
}

/// Parses one element of `upstreams`. Returns `None` if it is wrong; the problem is reported in `section`.
pub fn read<'a>(section: &mut Section<'a>, element: Value<'a>) -> Option<UpstreamEntry> {
    if element.is_table() {
        return section.table(&UPSTREAMS, element, read_table);
    }
    let upstream = section.parse(UPSTREAMS.element(), element)?;
    Some(UpstreamEntry {
        upstream,
        options: PLAIN,
        weight: None,
        source: None,
        drain: None,
        backup: None,
        shadow: None,
    })
}

/// The options of an upstream that is written as text.
const PLAIN: UpstreamOptions = UpstreamOptions {
    weight: WEIGHT.default_value(),
    sample: None,
    proxy: false,
    max_rate: None,
    drain: DRAIN.default_value(),
    backup: BACKUP.default_value(),
    shadow: SHADOW.default_value(),
};

fn read_table(section: &mut Section<'_>) -> Option<UpstreamEntry> {
    let upstream = section.require(&ADDRESS);
    let weight = section.find_placed(&WEIGHT);
    let sample = section.find(&SAMPLE);
    let max_rate = section.find(&MAX_RATE);
    let proxy = section.find(&PROXY).unwrap_or(false);
    let ttl = section.find(&UPSTREAM_TTL);
    let dscp = section.find(&DSCP);
    let source = section.find_placed(&SOURCE);
    let interface = section.find(&INTERFACE);
    let loop_back = section.get(&LOOP);
    let drain = flag(section, &DRAIN);
    let backup = flag(section, &BACKUP);
    let shadow = flag(section, &SHADOW);

    if shadow.is_some() {
        check_shadow(section, backup.clone(), weight.as_ref());
    }
    let mut upstream = upstream?;
    upstream.egress.ttl = ttl;
    upstream.egress.dscp = dscp;
    upstream.egress.from = source
        .as_ref()
        .map_or(SOURCE.default_value(), |source| source.value);
    upstream.egress.interface = interface.map(|interface| interface.to_string());
    upstream.egress.loop_back = loop_back;
    check_loop(section, &upstream);
    check_interface(section, &upstream);
    if let Some(source) = &source {
        check_source(section, &upstream, source);
    }
    let options = UpstreamOptions {
        weight: weight
            .as_ref()
            .map_or(WEIGHT.default_value(), |weight| weight.value),
        sample,
        proxy,
        max_rate,
        drain: drain.is_some(),
        backup: backup.is_some(),
        shadow: shadow.is_some(),
    };
    Some(UpstreamEntry {
        upstream,
        options,
        weight: weight.map(|weight| weight.at),
        source: source.map(|source| source.at),
        drain,
        backup,
        shadow,
    })
}

/// Returns the byte range of a flag that is `true`.
fn flag(section: &mut Section<'_>, setting: &Setting<bool>) -> Option<Range<usize>> {
    section
        .find_placed(setting)
        .filter(|flag| flag.value)
        .map(|flag| flag.at)
}

/// Reports options that an upstream that gets copies cannot have.
fn check_shadow(
    section: &mut Section<'_>,
    backup: Option<Range<usize>>,
    weight: Option<&Placed<u32>>,
) {
    if let Some(at) = backup {
        let message =
            "a shadow gets copies of what the others get, so it cannot replace one of them";
        section.problem_at(BACKUP.key, at, message, "leave one of the two out");
    }
    if let Some(weight) = weight {
        let message = "a shadow gets copies of what the others get, so it is never picked";
        section.problem_at(WEIGHT.key, weight.at.clone(), message, "leave it out");
    }
}

fn check_loop(section: &mut Section<'_>, upstream: &Upstream) {
    if section.has(LOOP.key) && !upstream.is_group() {
        let message = format!(
            "{upstream} is not a multicast group, and only datagrams to a group can be looped back"
        );
        section.problem(LOOP.key, message, "leave it out");
    }
}

/// Reports an interface that differs from the one in the address's zone.
fn check_interface(section: &mut Section<'_>, upstream: &Upstream) {
    if let (UpstreamHost::Scoped { interface, .. }, Some(other)) =
        (&upstream.host, &upstream.egress.interface)
        && interface != other
    {
        let message = format!("the zone of {upstream} names another interface, {interface}");
        section.problem(INTERFACE.key, message, "leave one of the two out");
    }
}

fn check_source(section: &mut Section<'_>, upstream: &Upstream, source: &Placed<SendFrom>) {
    let SendFrom::Address(from) = source.value else {
        return;
    };
    let to = match &upstream.host {
        UpstreamHost::Address(address) => Some(address.ip()),
        UpstreamHost::Scoped { address, .. } => Some(IpAddr::V6(*address)),
        UpstreamHost::Name(_) => None,
    };
    if let Some(to) = to
        && to.is_ipv4() != from.is_ipv4()
    {
        let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let from = from.ip();
        let to_family = family(to);
        let message = format!("{from} is {}, but {upstream} is {to_family}", family(from));
        section.problem_at(
            SOURCE.key,
            source.at.clone(),
            message,
            format!("write an {to_family} address of this host"),
        );
    } else if let SocketAddr::V6(v6) = from
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
        && upstream.egress.interface.is_none()
        && !matches!(upstream.host, UpstreamHost::Scoped { .. })
    {
        let message = format!("{} is link-local, so it needs an interface", v6.ip());
        section.problem_at(
            SOURCE.key,
            source.at.clone(),
            message,
            "add interface = \"eth0\", with the name of the interface",
        );
    }
}
