//! Decides which names are resolved again and when, and what an answer means for the upstreams that have the name. The
//! look-ups themselves, which may block for as long as the system's resolver likes, run elsewhere: see `mod.rs`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::schedule::{Schedule, Turn};
use super::{News, Ward};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;

/// Look-ups that are under way at a time; each is a thread. Further ones wait.
const UNDER_WAY_MAX: usize = 8;
/// A look-up that takes longer is told of. It goes on: getaddrinfo(3) cannot be stopped.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a name is asked for while an upstream has no address at all, unless the interval is shorter.
const RETRY: Duration = Duration::from_secs(10);

/// What a look-up said: addresses without meaningful ports, or why there are none.
pub type Answer = Result<Vec<SocketAddr>, String>;

/// Says whether an upstream may move to an address, or what would come of it.
pub type Permit<'a> = &'a mut dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String>;

/// All names that are resolved again. The places of this list are the schedule's jobs.
pub struct Resolver {
    names: Vec<Name>,
    schedule: Schedule,
}

/// A name, which is looked up once for all upstreams that have it.
struct Name {
    name: String,
    interval: Option<Duration>,
    users: Vec<User>,
    is_failing: bool,
}

/// An upstream of that name.
struct User {
    id: UpstreamId,
    /// Name and port.
    label: String,
    port: u16,
    address: Option<SocketAddr>,
    /// The address that it was last kept from.
    forbidden: Option<SocketAddr>,
}

impl Resolver {
    /// Will resolve the names of those wards that are to be resolved again, or have no address yet.
    pub fn new(wards: &[Ward], start: Instant) -> Resolver {
        let mut names: Vec<Name> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (id, ward) in wards.iter().enumerate() {
            let Some(name) = ward.name() else { continue };
            let place = *places.entry(name).or_insert(names.len());
            if place == names.len() {
                names.push(Name {
                    name: name.to_owned(),
                    interval: None,
                    users: Vec::new(),
                    is_failing: false,
                });
            }
            let interval = Some(ward.resolve_interval).filter(|interval| !interval.is_zero());
            let name = &mut names[place];
            // The most impatient handler decides.
            name.interval = name.interval.into_iter().chain(interval).min();
            name.is_failing |= ward.address.is_none();
            name.users.push(User {
                id: UpstreamId(id as u32),
                label: ward.upstream.to_string(),
                port: ward.upstream.port,
                address: ward.address,
                forbidden: None,
            });
        }
        names.retain(|name| name.pace().is_some());
        let mut schedule = Schedule::new(UNDER_WAY_MAX);
        for name in &names {
            // They have just been looked up, when the daemon started.
            schedule.add(
                start,
                name.pace().and_then(|pace| start.checked_add(pace)),
                name.pace(),
                PATIENCE,
            );
        }
        Resolver { names, schedule }
    }

    /// Whether there is nothing to resolve.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// When there will be something to do besides answers.
    pub fn wake_at(&self) -> Option<Instant> {
        self.schedule.wake_at()
    }

    /// A name that is to be looked up now, and its number. To be asked until there is none.
    pub fn next_look_up(&mut self, now: Instant, news: &mut Vec<News>) -> Option<(usize, &str)> {
        while let Some(turn) = self.schedule.next_turn(now) {
            match turn {
                Turn::Begin(place) => return Some((place, &self.names[place].name)),
                Turn::Overdue(place) => {
                    let why = format!("no answer within {}", humantime::format_duration(PATIENCE));
                    self.names[place].fail(&why, news);
                }
            }
        }
        None
    }

    /// What a look-up came to.
    pub fn on_answer(
        &mut self,
        place: usize,
        answer: Answer,
        now: Instant,
        permit: Permit<'_>,
        news: &mut Vec<News>,
    ) {
        let name = &mut self.names[place];
        match answer {
            Ok(addresses) if !addresses.is_empty() => name.take(&addresses, permit, news),
            Ok(_) => name.fail("it has no address", news),
            Err(why) => name.fail(&why, news),
        }
        self.schedule.set_interval(place, name.pace());
        self.schedule.done(place, now);
    }
}

impl Name {
    /// How often it is looked up as things stand.
    fn pace(&self) -> Option<Duration> {
        match self.users.iter().any(|user| user.address.is_none()) {
            true => Some(self.interval.map_or(RETRY, |interval| interval.min(RETRY))),
            false => self.interval,
        }
    }

    fn take(&mut self, addresses: &[SocketAddr], permit: Permit<'_>, news: &mut Vec<News>) {
        let had_address = self.users.iter().any(|user| user.address.is_some());
        if std::mem::replace(&mut self.is_failing, false) && had_address {
            news.push(News::Say(
                log::Level::Info,
                format!("name {} resolves again", self.name),
            ));
        }
        let mut lines: Vec<News> = Vec::new();
        for user in &mut self.users {
            let Some(address) = choose(user.address, addresses, user.port) else {
                continue;
            };
            let label = &user.label;
            let line = match permit(user.id, address) {
                Ok(()) => {
                    news.push(News::Change(user.id, Change::Moved(address)));
                    user.forbidden = None;
                    let text = match user.address.replace(address) {
                        Some(old) => format!("upstream {label}: now at {address}, was {old}"),
                        None => {
                            format!("upstream {label}: now at {address}, had no address before")
                        }
                    };
                    News::Say(log::Level::Info, text)
                }
                Err(_) if user.forbidden == Some(address) => continue,
                Err(why) => {
                    user.forbidden = Some(address);
                    let stays = match user.address {
                        Some(old) => format!("it stays at {old}"),
                        None => "it stays without an address".to_owned(),
                    };
                    let text = format!(
                        "upstream {label}: its name now stands for {address}, which would close {why}; {stays}. Correct \
                         the name's records, or write an address"
                    );
                    News::Say(log::Level::Warn, text)
                }
            };
            // Two handlers with the same upstream are one line.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        news.extend(lines);
    }

    /// Told once in a stretch of failures.
    fn fail(&mut self, why: &str, news: &mut Vec<News>) {
        if std::mem::replace(&mut self.is_failing, true) {
            return;
        }
        let (name, pace) = (&self.name, self.pace().unwrap_or(RETRY));
        let text = format!(
            "name {name} does not resolve any more ({why}); its upstreams stay at the addresses they had. It is tried again \
             every {}; check the name, and /etc/resolv.conf",
            humantime::format_duration(pace)
        );
        news.push(News::Say(log::Level::Warn, text));
    }
}

/// Where an upstream moves to, if it moves. As long as its address is among the answers it stays, however a resolver may
/// shuffle them.
fn choose(in_use: Option<SocketAddr>, addresses: &[SocketAddr], port: u16) -> Option<SocketAddr> {
    let with_port = |address: &SocketAddr| {
        let mut address = *address;
        address.set_port(port);
        address
    };
    let mut addresses = addresses.iter().map(with_port);
    match in_use {
        Some(in_use) if addresses.clone().any(|address| address == in_use) => None,
        _ => addresses.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::{Host, Leave, Upstream};

    const SECOND: Duration = Duration::from_secs(1);
    const PORT: u16 = 2055;

    fn ward(name: &str, port: u16, address: Option<&str>, resolve_interval: Duration) -> Ward {
        let upstream = Upstream {
            host: Host::Name(name.to_owned()),
            port,
            at: 0..0,
            leave: Leave::default(),
        };
        let address = address.map(|ip| at(ip, port));
        Ward {
            handler: "web".to_owned(),
            upstream,
            address,
            interface: 0,
            is_alive: true,
            probe: None,
            resolve_interval,
        }
    }

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    fn moved(id: u32, ip: &str, port: u16) -> News {
        News::Change(UpstreamId(id), Change::Moved(at(ip, port)))
    }

    fn say(level: log::Level, text: &str) -> News {
        News::Say(level, text.to_owned())
    }

    /// The first look-up that is due by then, answered by these addresses; and what is new.
    fn answer(resolver: &mut Resolver, now: Instant, answer: Result<&[&str], &str>) -> Vec<News> {
        answer_watched(resolver, now, answer, &mut |_, _| Ok(()))
    }

    fn answer_watched(
        resolver: &mut Resolver,
        now: Instant,
        answer: Result<&[&str], &str>,
        permit: Permit<'_>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let (place, _) = resolver
            .next_look_up(now, &mut news)
            .expect("a name is due");
        let answer = answer
            .map(|ips| ips.iter().map(|ip| at(ip, 0)).collect())
            .map_err(str::to_owned);
        resolver.on_answer(place, answer, now, permit, &mut news);
        news
    }

    /// An upstream stays as long as its address is among the answers, wherever in them; then it takes the first.
    #[test]
    fn an_upstream_moves_only_when_its_address_is_gone() {
        let start = Instant::now();
        let mut resolver = Resolver::new(
            &[ward("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
            start,
        );
        assert_eq!(resolver.wake_at(), Some(start + 30 * SECOND));
        for (interval, answers) in [["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]]
            .iter()
            .enumerate()
        {
            let now = start + 30 * SECOND * (interval as u32 + 1);
            assert_eq!(
                answer(&mut resolver, now, Ok(answers)),
                [],
                "it is still there"
            );
        }
        let line = "upstream a.example:2055: now at 192.0.2.2:2055, was 192.0.2.1:2055";
        let news = answer(
            &mut resolver,
            start + 90 * SECOND,
            Ok(&["192.0.2.2", "192.0.2.3"]),
        );
        assert_eq!(
            news,
            [moved(0, "192.0.2.2", PORT), say(log::Level::Info, line)]
        );
        assert_eq!(
            answer(
                &mut resolver,
                start + 120 * SECOND,
                Ok(&["192.0.2.3", "192.0.2.2"])
            ),
            []
        );
    }

    /// Failures keep the address, and are told once a stretch, as is their end.
    #[test]
    fn a_failure_keeps_the_address() {
        let start = Instant::now();
        let mut resolver = Resolver::new(
            &[ward("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
            start,
        );
        let failing = "name a.example does not resolve any more (no servers); its upstreams stay at the addresses they \
                       had. It is tried again every 30s; check the name, and /etc/resolv.conf";
        let again = "name a.example resolves again";
        for (interval, given, expected) in [
            (1, Err("no servers"), vec![say(log::Level::Warn, failing)]),
            (2, Err("no servers"), vec![]),
            (
                3,
                Ok(&["192.0.2.1"][..]),
                vec![say(log::Level::Info, again)],
            ),
            (4, Ok(&["192.0.2.1"][..]), vec![]),
            (5, Err("no servers"), vec![say(log::Level::Warn, failing)]),
            (6, Ok(&[][..]), vec![]),
        ] {
            assert_eq!(
                answer(&mut resolver, start + 30 * SECOND * interval, given),
                expected,
                "{interval}"
            );
        }
    }

    /// A name that did not resolve at start is tried often, even if it is not to be resolved again, until it does.
    #[test]
    fn an_optional_name_resolves_at_last() {
        for interval in [Duration::ZERO, 3_600 * SECOND] {
            let start = Instant::now();
            let mut resolver = Resolver::new(&[ward("a.example", PORT, None, interval)], start);
            assert_eq!(resolver.wake_at(), Some(start + RETRY));
            assert_eq!(
                answer(&mut resolver, start + RETRY, Err("unknown")),
                [],
                "the plan has said so"
            );
            let line = "upstream a.example:2055: now at 192.0.2.1:2055, had no address before";
            let news = answer(&mut resolver, start + 2 * RETRY, Ok(&["192.0.2.1"]));
            assert_eq!(
                news,
                [moved(0, "192.0.2.1", PORT), say(log::Level::Info, line)]
            );
            assert_eq!(
                resolver.wake_at(),
                (!interval.is_zero()).then_some(start + interval)
            );
        }
    }

    /// Handlers share look-ups: one for each name, as often as the most impatient of them wants. Addresses, and names
    /// that nobody wants resolved again, are left alone.
    #[test]
    fn a_name_is_looked_up_once() {
        let start = Instant::now();
        let mut fixed = ward("192.0.2.9", PORT, Some("192.0.2.9"), SECOND);
        fixed.upstream.host = Host::Address(at("192.0.2.9", PORT));
        let mut resolver = Resolver::new(
            &[
                ward("a.example", PORT, Some("192.0.2.1"), 60 * SECOND),
                fixed,
                ward("b.example", PORT, Some("192.0.2.1"), Duration::ZERO),
                ward("a.example", 53, Some("192.0.2.1"), 30 * SECOND),
                ward("a.example", PORT, Some("192.0.2.1"), Duration::ZERO),
            ],
            start,
        );
        let news = answer(&mut resolver, start + 30 * SECOND, Ok(&["192.0.2.2"]));
        let line = |port| {
            format!("upstream a.example:{port}: now at 192.0.2.2:{port}, was 192.0.2.1:{port}")
        };
        assert_eq!(
            news,
            [
                moved(0, "192.0.2.2", PORT),
                moved(3, "192.0.2.2", 53),
                moved(4, "192.0.2.2", PORT),
                say(log::Level::Info, &line(PORT)),
                say(log::Level::Info, &line(53)),
            ]
        );
        assert_eq!(
            resolver.next_look_up(start + 30 * SECOND, &mut Vec::new()),
            None
        );
        assert_eq!(resolver.wake_at(), Some(start + 60 * SECOND));
    }

    /// An address that would close a loop is not taken, and told once; a later one is taken.
    #[test]
    fn a_loop_is_not_closed() {
        let start = Instant::now();
        let mut resolver = Resolver::new(
            &[ward("a.example", PORT, Some("192.0.2.1"), 30 * SECOND)],
            start,
        );
        let mut permit = |id, address: SocketAddr| match address.ip().is_loopback() {
            true => Err(format!("a loop of {id:?}")),
            false => Ok(()),
        };
        let line = "upstream a.example:2055: its name now stands for 127.0.0.1:2055, which would close a loop of \
                    UpstreamId(0); it stays at 192.0.2.1:2055. Correct the name's records, or write an address";
        for (interval, ip, expected) in [
            (1, "127.0.0.1", vec![say(log::Level::Warn, line)]),
            (2, "127.0.0.1", vec![]),
            (3, "192.0.2.1", vec![]),
        ] {
            let news = answer_watched(
                &mut resolver,
                start + 30 * SECOND * interval,
                Ok(&[ip]),
                &mut permit,
            );
            assert_eq!(news, expected, "{interval}");
        }
        let news = answer_watched(
            &mut resolver,
            start + 120 * SECOND,
            Ok(&["192.0.2.7"]),
            &mut permit,
        );
        assert_eq!(news.first(), Some(&moved(0, "192.0.2.7", PORT)));
    }

    /// A look-up that hangs is told of once, is not begun again while it hangs, and counts when it comes to an end.
    #[test]
    fn a_look_up_may_hang() {
        let (start, mut news) = (Instant::now(), Vec::new());
        let mut resolver = Resolver::new(
            &[ward("a.example", PORT, Some("192.0.2.1"), 10 * SECOND)],
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
        let line = "name a.example does not resolve any more (no answer within 30s); its upstreams stay at the addresses \
                    they had. It is tried again every 10s; check the name, and /etc/resolv.conf";
        assert_eq!(news, [say(log::Level::Warn, line)]);
        news.clear();
        resolver.on_answer(
            0,
            Ok(vec![at("192.0.2.1", 0)]),
            start + 300 * SECOND,
            &mut |_, _| Ok(()),
            &mut news,
        );
        assert_eq!(
            news,
            [say(log::Level::Info, "name a.example resolves again")]
        );
        assert_eq!(resolver.wake_at(), Some(start + 310 * SECOND));
    }

    /// However many names hang, there are only so many look-ups, so only so many threads.
    #[test]
    fn look_ups_are_bounded() {
        let start = Instant::now();
        let wards: Vec<_> = (0..100)
            .map(|n| ward(&format!("{n}.example"), PORT, Some("192.0.2.1"), SECOND))
            .collect();
        let mut resolver = Resolver::new(&wards, start);
        let mut begun = 0;
        for second in 1..100 {
            while resolver
                .next_look_up(start + second * SECOND, &mut Vec::new())
                .is_some()
            {
                begun += 1;
            }
        }
        assert_eq!(begun, UNDER_WAY_MAX);
    }
}
