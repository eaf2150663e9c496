//! The periodic tasks of the supervisor. It checks whether the file has changed, takes snapshots so that alarms are
//! logged although no client requests one, and checks for missing resources. It also notifies the service manager that the
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
const EXPECTING_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two checks for alarms if no route expects traffic.
const QUIET_INTERVAL: Duration = Duration::from_secs(3);
/// Longest time between two checks. Below this limit, checks take at most a hundredth of the time.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

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
    next_snapshot: Instant,
}

impl Periodic {
    /// Returns the tasks, with the service manager that started this process, if any.
    pub(crate) fn new() -> Periodic {
        let service = ServiceManager::this().unwrap_or_else(|error| {
            log::warn!("the service manager cannot be reached ($NOTIFY_SOCKET): {error}");
            ServiceManager::default()
        });
        let watchdog = watchdog_interval().map(|interval| (interval / 2, Instant::now()));
        let (host_watch, next_snapshot) = (HostWatch::start(), Instant::now() + EXPECTING_INTERVAL);
        let (store, resource_watch) = (Store::new(service.clone()), ResourceWatch::new());
        Periodic {
            store,
            service,
            watch: None,
            resource_watch,
            watchdog,
            host_watch,
            next_snapshot,
        }
    }

    /// Continues with the sockets that another process has stored. `kept` has the number of sockets of each listener.
    pub fn inherit(&mut self, kept: impl Iterator<Item = (ListenerKey, usize)>) {
        self.store.inherit(kept);
    }

    /// Returns how long the supervisor may wait for other events.
    pub fn timeout(&self) -> Duration {
        let watch = self.watch.as_ref().map(ConfigWatch::next);
        let others = watch
            .into_iter()
            .chain(self.watchdog.map(|(_, next)| next))
            .chain([self.next_snapshot]);
        let first = others.fold(self.resource_watch.next(), Instant::min);
        first.saturating_duration_since(Instant::now())
    }

    /// Returns whether the sockets outlive this process. The service manager does not report whether the unit allows no
    /// stored sockets (`FileDescriptorStoreMax=0`). In that case, datagrams that arrive in the last moment are lost with
    /// the sockets.
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
        self.resource_watch.check(now, conditions);
        self.feed_watchdog(now, running);
        Due {
            reload,
            snapshot: self.next_snapshot <= now,
        }
    }

    /// Notifies the service manager that the process is alive. It is not notified while a worker is unresponsive, so that
    /// it restarts the process.
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
        let step = if is_expecting {
            EXPECTING_INTERVAL
        } else {
            QUIET_INTERVAL
        };
        self.next_snapshot = Instant::now() + (100 * begun.elapsed()).clamp(step, INTERVAL_MAX);
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
                    .filter(|(slot, _)| slot.listener.index() == number)
                    .map(|(_, socket)| socket.as_fd());
                (listener.key.clone(), own.collect())
            })
            .collect();
        self.store.keep(&sockets)
    }
}
