//! Tests of `monitor/resolver.rs`.

use super::*;
use crate::config::upstream::{Egress, Upstream, UpstreamHost};
use crate::monitor::UpstreamState;

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 2055;

fn monitored(
    name: &str,
    port: u16,
    address: Option<&str>,
    resolve_interval: Duration,
) -> Arc<MonitoredUpstream> {
    let upstream = Upstream {
        host: UpstreamHost::Name(name.to_owned()),
        port,
        at: 0..0,
        egress: Egress::default(),
    };
    let address = address.map(|ip| at(ip, port));
    Arc::new(MonitoredUpstream {
        handler: "web".to_owned(),
        upstream,
        interface: 0,
        state: UpstreamState::new(address),
        probe: None,
        resolve_interval,
    })
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn moved(id: u32, ip: &str, port: u16) -> News {
    News::UpstreamEvent(UpstreamId(id), UpstreamEvent::Moved(at(ip, port)))
}

fn log_line(level: log::Level, text: &str) -> News {
    News::Log(level, text.to_owned())
}

/// Ends the first look-up that is due with this result, and returns the news.
fn result(resolver: &mut Resolver, now: Instant, result: Result<&[&str], &str>) -> Vec<News> {
    result_with_permit(resolver, now, result, &mut |_, _| Ok(()))
}

fn result_with_permit(
    resolver: &mut Resolver,
    now: Instant,
    result: Result<&[&str], &str>,
    permit: Permit<'_>,
) -> Vec<News> {
    let mut news = Vec::new();
    let (place, _) = resolver
        .next_look_up(now, &mut news)
        .expect("a name is due");
    let result = result
        .map(|ips| ips.iter().map(|ip| at(ip, 0)).collect())
        .map_err(str::to_owned);
    let lookup = CompletedLookup { place, result };
    resolver.on_result(lookup, now, permit, &mut news);
    news
}

/// An upstream stays while its address is among the results, at any position. Otherwise it takes the first one.
#[test]
fn an_upstream_moves_only_when_its_address_is_gone() {
    let start = Instant::now();
    let mut resolver = Resolver::new(
        &[monitored("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
        start,
    );
    assert_eq!(resolver.wake_at(), Some(start + 30 * SECOND));
    for (interval, addresses) in [["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]]
        .iter()
        .enumerate()
    {
        let now = start + 30 * SECOND * (interval as u32 + 1);
        assert_eq!(
            result(&mut resolver, now, Ok(addresses)),
            [],
            "it is still there"
        );
    }
    let line = "upstream a.example:2055: now at 192.0.2.2:2055, was 192.0.2.1:2055";
    let news = result(
        &mut resolver,
        start + 90 * SECOND,
        Ok(&["192.0.2.2", "192.0.2.3"]),
    );
    assert_eq!(
        news,
        [
            moved(0, "192.0.2.2", PORT),
            log_line(log::Level::Info, line)
        ]
    );
    assert_eq!(
        result(
            &mut resolver,
            start + 120 * SECOND,
            Ok(&["192.0.2.3", "192.0.2.2"])
        ),
        []
    );
}

/// A failure keeps the address. A series of failures is logged once, and so is its end.
#[test]
fn a_failure_keeps_the_address() {
    let start = Instant::now();
    let mut resolver = Resolver::new(
        &[monitored("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
        start,
    );
    let failing = "name a.example does not resolve any more (no servers); its upstreams stay at the addresses they \
                   had. It is tried again every 30s; check the name, and /etc/resolv.conf";
    let again = "name a.example resolves again";
    for (interval, given, expected) in [
        (
            1,
            Err("no servers"),
            vec![log_line(log::Level::Warn, failing)],
        ),
        (2, Err("no servers"), vec![]),
        (
            3,
            Ok(&["192.0.2.1"][..]),
            vec![log_line(log::Level::Info, again)],
        ),
        (4, Ok(&["192.0.2.1"][..]), vec![]),
        (
            5,
            Err("no servers"),
            vec![log_line(log::Level::Warn, failing)],
        ),
        (6, Ok(&[][..]), vec![]),
    ] {
        assert_eq!(
            result(&mut resolver, start + 30 * SECOND * interval, given),
            expected,
            "{interval}"
        );
    }
}

/// A name that did not resolve at the start is looked up often until it does, even if it is not to be resolved again.
#[test]
fn an_optional_name_resolves_at_last() {
    for interval in [Duration::ZERO, 3_600 * SECOND] {
        let start = Instant::now();
        let mut resolver = Resolver::new(&[monitored("a.example", PORT, None, interval)], start);
        assert_eq!(resolver.wake_at(), Some(start + RETRY));
        assert_eq!(
            result(&mut resolver, start + RETRY, Err("unknown")),
            [],
            "the plan has reported it"
        );
        let line = "upstream a.example:2055: now at 192.0.2.1:2055, had no address before";
        let news = result(&mut resolver, start + 2 * RETRY, Ok(&["192.0.2.1"]));
        assert_eq!(
            news,
            [
                moved(0, "192.0.2.1", PORT),
                log_line(log::Level::Info, line)
            ]
        );
        assert_eq!(
            resolver.wake_at(),
            (!interval.is_zero()).then_some(start + interval)
        );
    }
}

/// Handlers share look-ups: each name has one, at the shortest interval of its handlers. Addresses are not looked up,
/// nor are names without an interval.
#[test]
fn a_name_is_looked_up_once() {
    let start = Instant::now();
    let mut fixed = monitored("192.0.2.9", PORT, Some("192.0.2.9"), SECOND);
    Arc::make_mut(&mut fixed).upstream.host = UpstreamHost::Address(at("192.0.2.9", PORT));
    let mut resolver = Resolver::new(
        &[
            monitored("a.example", PORT, Some("192.0.2.1"), 60 * SECOND),
            fixed,
            monitored("b.example", PORT, Some("192.0.2.1"), Duration::ZERO),
            monitored("a.example", 53, Some("192.0.2.1"), 30 * SECOND),
            monitored("a.example", PORT, Some("192.0.2.1"), Duration::ZERO),
        ],
        start,
    );
    let news = result(&mut resolver, start + 30 * SECOND, Ok(&["192.0.2.2"]));
    let line =
        |port| format!("upstream a.example:{port}: now at 192.0.2.2:{port}, was 192.0.2.1:{port}");
    assert_eq!(
        news,
        [
            moved(0, "192.0.2.2", PORT),
            moved(3, "192.0.2.2", 53),
            moved(4, "192.0.2.2", PORT),
            log_line(log::Level::Info, &line(PORT)),
            log_line(log::Level::Info, &line(53)),
        ]
    );
    assert_eq!(
        resolver.next_look_up(start + 30 * SECOND, &mut Vec::new()),
        None
    );
    assert_eq!(resolver.wake_at(), Some(start + 60 * SECOND));
}

/// An address that would close a loop is not used, and is logged once. A later address is used.
#[test]
fn a_loop_is_not_closed() {
    let start = Instant::now();
    let mut resolver = Resolver::new(
        &[monitored("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
        start,
    );
    let mut permit = |id, address: SocketAddr| {
        if address.ip().is_loopback() {
            Err(format!("a loop of {id:?}"))
        } else {
            Ok(())
        }
    };
    let line = "upstream a.example:2055: its name now resolves to 127.0.0.1:2055, which would close a loop of \
                UpstreamId(0); it stays at 192.0.2.1:2055. Correct the name's records, or write an address";
    for (interval, ip, expected) in [
        (1, "127.0.0.1", vec![log_line(log::Level::Warn, line)]),
        (2, "127.0.0.1", vec![]),
        (3, "192.0.2.1", vec![]),
    ] {
        let news = result_with_permit(
            &mut resolver,
            start + 30 * SECOND * interval,
            Ok(&[ip]),
            &mut permit,
        );
        assert_eq!(news, expected, "{interval}");
    }
    let news = result_with_permit(
        &mut resolver,
        start + 120 * SECOND,
        Ok(&["192.0.2.7"]),
        &mut permit,
    );
    assert_eq!(news.first(), Some(&moved(0, "192.0.2.7", PORT)));
}

/// A look-up that hangs is logged once and is not started again meanwhile. Its result counts when it ends.
#[test]
fn a_look_up_may_hang() {
    let (start, mut news) = (Instant::now(), Vec::new());
    let mut resolver = Resolver::new(
        &[monitored("a.example", PORT, Some("192.0.2.1"), 10 * SECOND)],
        start,
    );
    assert_eq!(
        resolver.next_look_up(start + 10 * SECOND, &mut news),
        Some((0, "a.example"))
    );
    for second in 11..300 {
        assert_eq!(
            resolver.next_look_up(start + second * SECOND, &mut news),
            None
        );
    }
    let line = "name a.example does not resolve any more (no response within 30s); its upstreams stay at the addresses \
                they had. It is tried again every 10s; check the name, and /etc/resolv.conf";
    assert_eq!(news, [log_line(log::Level::Warn, line)]);
    news.clear();
    let lookup = CompletedLookup {
        place: 0,
        result: Ok(vec![at("192.0.2.1", 0)]),
    };
    resolver.on_result(lookup, start + 300 * SECOND, &mut |_, _| Ok(()), &mut news);
    assert_eq!(
        news,
        [log_line(log::Level::Info, "name a.example resolves again")]
    );
    assert_eq!(resolver.wake_at(), Some(start + 310 * SECOND));
}

/// The number of look-ups, and so of threads, is bounded, however many names hang.
#[test]
fn look_ups_are_bounded() {
    let start = Instant::now();
    let monitored_upstreams: Vec<_> = (0..100)
        .map(|n| monitored(&format!("{n}.example"), PORT, Some("192.0.2.1"), SECOND))
        .collect();
    let mut resolver = Resolver::new(&monitored_upstreams, start);
    let mut begun = 0;
    for second in 1..100 {
        while resolver
            .next_look_up(start + second * SECOND, &mut Vec::new())
            .is_some()
        {
            begun += 1;
        }
    }
    assert_eq!(begun, IN_PROGRESS_MAX);
}
