//! The periodic tasks of the supervisor. It checks whether the file has changed, takes snapshots so that alarms are
//! logged although no client asks, and checks for missing resources. It also notifies the service manager that the
//! process is alive, and lets it store the listeners' sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::build::inherited_sockets::lend;
use crate::build::service_manager::{ServiceManager, log_error, watchdog_interval};
use crate::build::socket_activation::Store;
use crate::config::Config;
use crate::handover::running::Running;
use crate::observe::conditions::Conditions;
use crate::observe::host_watch::HostWatch;
use crate::observe::resource_watch::ResourceWatch;
use crate::observe::snapshot::Alarm;
use crate::plan::identity::ListenerKey;
use crate::supervisor::config_watch::ConfigWatch;

/// Time between two checks for alarms if a route expects traffic.
const EXPECTING: Duration = Duration::from_secs(1);
/// Time between two checks for alarms if no route expects traffic.
const UNEXPECTING: Duration = Duration::from_secs(3);
/// Longest time between two checks. Up to this limit, a check takes at most a hundredth of the time.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What the supervisor has to do after `Periodic::run`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// The configuration file has changed and must be read again.
    pub reload: bool,
    /// A snapshot is due, which logs new alarms.
    pub snapshot: bool,
}

/// The periodic tasks, and when each is due.
pub struct Periodic {
    /// The service manager that started this process, if any.
    pub(crate) service: ServiceManager,
    store: Store,
    watch: Option<ConfigWatch>,
    resource_watch: ResourceWatch,
    /// Half of the watchdog interval of the service manager, and when the next notification is due.
    watchdog: Option<(Duration, Instant)>,
    host_watch: HostWatch,
    /// When the next check for alarms is due.
    look: Instant,
}

impl Periodic {
    /// Returns the tasks, with the service manager that started this process, if any.
    pub(crate) fn new() -> Periodic {
        let service = ServiceManager::this().unwrap_or_else(|error| {
            log::warn!("the service manager cannot be reached ($NOTIFY_SOCKET): {error}");
            ServiceManager::default()
        });
        let watchdog = watchdog_interval().map(|interval| (interval / 2, Instant::now()));
        let (host_watch, look) = (HostWatch::start(), Instant::now() + EXPECTING);
        let (store, resource_watch) = (Store::new(service.clone()), ResourceWatch::new());
        Periodic {
            store,
            service,
            watch: None,
            resource_watch,
            watchdog,
            host_watch,
            look,
        }
    }

    /// Continues with the sockets that another process stored: for each listener, their number.
    pub fn go_on(&mut self, kept: impl Iterator<Item = (ListenerKey, usize)>) {
        self.store.inherit(kept);
    }

    /// Returns how long the supervisor may wait for other events.
    pub fn timeout(&self) -> Duration {
        let watch = self.watch.as_ref().map(ConfigWatch::next);
        let others = watch
            .into_iter()
            .chain(self.watchdog.map(|(_, next)| next))
            .chain([self.look]);
        let first = others.fold(self.resource_watch.next(), Instant::min);
        first.saturating_duration_since(Instant::now())
    }

    /// Returns whether the sockets outlive this process. If the unit allows no stored sockets
    /// (`FileDescriptorStoreMax=0`), the service manager does not report that. Datagrams that arrive in the last moment
    /// are then lost with the sockets.
    pub fn has_successor(&self) -> bool {
        self.service.is_there()
    }

    /// Returns the alarms that the host watch found.
    pub fn found(&self) -> Vec<Alarm> {
        self.host_watch.found()
    }

    /// Does what is due at `now`, and returns what remains to be done.
    pub(crate) fn run(&mut self, now: Instant, running: &Running, conditions: &Conditions) -> Due {
        let source = &running.config.source;
        let reload = self
            .watch
            .as_mut()
            .is_some_and(|watch| watch.is_changed(source, now));
        self.resource_watch.look(now, conditions);
        self.feed_watchdog(now, running);
        Due {
            reload,
            snapshot: self.look <= now,
        }
    }

    /// Notifies the service manager that the process is alive, unless a worker is not responsive, which is what the
    /// watchdog is for.
    fn feed_watchdog(&mut self, now: Instant, running: &Running) {
        let Some((interval, next)) = &mut self.watchdog else {
            return;
        };
        if *next > now {
            return;
        }
        *next = now + *interval;
        if running.ledgers().iter().all(Option::is_some) {
            log_error(self.service.alive());
        } else {
            log::error!(
                "a worker is not responsive: the watchdog of the service manager is not notified"
            );
        }
    }

    /// Sets the time of the next snapshot, after one that began at `begun` and is complete now.
    pub(crate) fn after_snapshot(&mut self, begun: Instant, config: &Config) {
        let is_expecting = config
            .routes
            .iter()
            .any(|route| !route.expectations.is_empty());
        let step = if is_expecting { EXPECTING } else { UNEXPECTING };
        self.look = Instant::now() + (100 * begun.elapsed()).clamp(step, LOOK_MAX);
    }

    /// Must be called when everything is bound and runs: at the start, and after each change of the configuration.
    pub(crate) fn on_ready(&mut self, running: &Running) {
        let config = &running.config;
        let watch = self.watch.take();
        self.watch = config
            .daemon
            .watch
            .then(|| watch.unwrap_or_else(|| ConfigWatch::new(Instant::now())));
        self.host_watch.watch(config, &running.plan);
        log_error(self.service.ready(std::process::id(), &running.summary()));
        if let Err(error) = self.keep_sockets(running) {
            log::warn!(
                "the service manager does not store the sockets: {error}; after a crash, the datagrams in their buffers are lost"
            );
        }
    }

    /// Lets the service manager store the listeners' sockets, so that they outlive a crash.
    fn keep_sockets(&mut self, running: &Running) -> io::Result<()> {
        if !self.service.is_there() {
            return Ok(());
        }
        let workers: Vec<_> = running.handles().cloned().collect();
        let lent = lend(&workers).map_err(io::Error::other)?;
        let keys = running.identity.listeners.iter().enumerate();
        let sockets: Vec<(ListenerKey, Vec<BorrowedFd<'_>>)> = keys
            .map(|(number, listener)| {
                let own = lent
                    .iter()
                    .filter(|(slot, _)| slot.listener == number)
                    .map(|(_, socket)| socket.as_fd());
                (listener.key.clone(), own.collect())
            })
            .collect();
        self.store.keep(&sockets)
    }
}
