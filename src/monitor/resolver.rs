//! Decides which names are resolved again and when, and what a result means for the upstreams of that name. The
//! look-ups themselves run elsewhere (`mod.rs`), because they may block for as long as the system's resolver does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::monitor::monitored::{MonitoredUpstream, News};
use crate::monitor::schedule::{Schedule, Turn};

/// Largest number of look-ups in progress. Each needs a thread. Further look-ups wait.
const IN_PROGRESS_MAX: usize = 8;
/// A look-up that takes longer than this is logged. It continues, since getaddrinfo(3) cannot be cancelled.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time between look-ups while an upstream has no address, unless the interval is shorter.
const RETRY: Duration = Duration::from_secs(10);

/// A look-up that has ended.
#[derive(Debug)]
pub struct CompletedLookup {
    /// The number of the name, as [`Resolver::next_look_up`] returned it.
    pub place: usize,
    /// The addresses, whose ports have no meaning, or an error text.
    pub result: Result<Vec<SocketAddr>, String>,
}

/// Checks whether an upstream may move to an address. The error describes what the move would cause.
pub type Permit<'a> = &'a mut dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String>;

/// All names that are resolved again. Positions in this list are the schedule's jobs.
pub struct Resolver {
    names: Vec<Name>,
    schedule: Schedule,
}

/// A name, which is looked up once for all its upstreams.
struct Name {
    name: String,
    interval: Option<Duration>,
    users: Vec<User>,
    is_failing: bool,
}

/// An upstream with that name.
struct User {
    id: UpstreamId,
    upstream: Arc<MonitoredUpstream>,
    address: Option<SocketAddr>,
    /// The last address that the upstream was not permitted to move to.
    forbidden: Option<SocketAddr>,
}

impl Resolver {
    /// Returns a resolver for those monitored upstreams that are to be resolved again or have no address yet.
    pub fn new(monitored_upstreams: &[Arc<MonitoredUpstream>], start: Instant) -> Resolver {
        let mut names: Vec<Name> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (id, monitored) in monitored_upstreams.iter().enumerate() {
            let Some(name) = monitored.name() else {
                continue;
            };
            let place = *places.entry(name).or_insert(names.len());
            if place == names.len() {
                names.push(Name {
                    name: name.to_owned(),
                    interval: None,
                    users: Vec::new(),
                    is_failing: false,
                });
            }
            let interval = Some(monitored.resolve_interval).filter(|interval| !interval.is_zero());
            let name = &mut names[place];
            // The shortest interval of all handlers applies.
            name.interval = name.interval.into_iter().chain(interval).min();
            name.is_failing |= monitored.state.address.is_none();
            name.users.push(User {
                id: UpstreamId::new(id),
                upstream: Arc::clone(monitored),
                address: monitored.state.address,
                forbidden: None,
            });
        }
        names.retain(|name| name.pace().is_some());
        let mut schedule = Schedule::new(IN_PROGRESS_MAX);
        for name in &names {
            // The names were looked up when the daemon started, so the first look-up here waits an interval.
            schedule.add(
                start,
                name.pace().and_then(|pace| start.checked_add(pace)),
                name.pace(),
                TIMEOUT,
            );
        }
        Resolver { names, schedule }
    }

    /// Returns whether there is nothing to resolve.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns when there will be something to do, unless a result comes first.
    pub fn wake_at(&self) -> Option<Instant> {
        self.schedule.wake_at()
    }

    /// Returns a name that must be looked up now, and its number. Call it until it returns `None`.
    pub fn next_look_up(&mut self, now: Instant, news: &mut Vec<News>) -> Option<(usize, &str)> {
        while let Some(turn) = self.schedule.next_turn(now) {
            match turn {
                Turn::Begin(place) => return Some((place, &self.names[place].name)),
                Turn::Overdue(place) => {
                    let why = format!("no response within {}", humantime::format_duration(TIMEOUT));
                    self.names[place].record_failure(&why, news);
                }
            }
        }
        None
    }

    /// Handles the result of a look-up.
    pub fn on_result(
        &mut self,
        lookup: CompletedLookup,
        now: Instant,
        permit: Permit<'_>,
        news: &mut Vec<News>,
    ) {
        let CompletedLookup { place, result } = lookup;
        let name = &mut self.names[place];
        match result {
            Ok(addresses) if !addresses.is_empty() => name.use_addresses(&addresses, permit, news),
            Ok(_) => name.record_failure("it has no address", news),
            Err(why) => name.record_failure(&why, news),
        }
        self.schedule.set_interval(place, name.pace());
        self.schedule.done(place, now);
    }
}

impl Name {
    /// Returns the current time between look-ups of the name.
    fn pace(&self) -> Option<Duration> {
        if self.users.iter().any(|user| user.address.is_none()) {
            Some(self.interval.map_or(RETRY, |interval| interval.min(RETRY)))
        } else {
            self.interval
        }
    }

    /// Moves each upstream whose address is not among the results to the first result, if that is permitted.
    fn use_addresses(
        &mut self,
        addresses: &[SocketAddr],
        permit: Permit<'_>,
        news: &mut Vec<News>,
    ) {
        let had_address = self.users.iter().any(|user| user.address.is_some());
        if std::mem::replace(&mut self.is_failing, false) && had_address {
            news.push(News::Log(
                log::Level::Info,
                format!("name {} resolves again", self.name),
            ));
        }
        let mut lines: Vec<News> = Vec::new();
        for user in &mut self.users {
            let label = &user.upstream.upstream;
            let Some(address) = choose(user.address, addresses, label.port) else {
                continue;
            };
            let line = match permit(user.id, address) {
                Ok(()) => {
                    news.push(News::UpstreamEvent(user.id, UpstreamEvent::Moved(address)));
                    user.forbidden = None;
                    let text = match user.address.replace(address) {
                        Some(old) => format!("upstream {label}: now at {address}, was {old}"),
                        None => {
                            format!("upstream {label}: now at {address}, had no address before")
                        }
                    };
                    News::Log(log::Level::Info, text)
                }
                Err(_) if user.forbidden == Some(address) => continue,
                Err(why) => {
                    user.forbidden = Some(address);
                    let stays = match user.address {
                        Some(old) => format!("it stays at {old}"),
                        None => "it stays without an address".to_owned(),
                    };
                    let text = format!(
                        "upstream {label}: its name now resolves to {address}, which would close {why}; {stays}. Correct \
                         the name's records, or write an address"
                    );
                    News::Log(log::Level::Warn, text)
                }
            };
            // Two handlers with the same upstream share one log line.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        news.extend(lines);
    }

    /// Logs a failure, once per series of failures.
    fn record_failure(&mut self, why: &str, news: &mut Vec<News>) {
        if std::mem::replace(&mut self.is_failing, true) {
            return;
        }
        let (name, pace) = (&self.name, self.pace().unwrap_or(RETRY));
        let text = format!(
            "name {name} does not resolve any more ({why}); its upstreams stay at the addresses they had. It is tried again \
             every {}; check the name, and /etc/resolv.conf",
            humantime::format_duration(pace)
        );
        news.push(News::Log(log::Level::Warn, text));
    }
}

/// Returns the address that an upstream moves to, if it moves. It stays while its address is among the results, in
/// whatever order a resolver returns them.
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
mod tests;
