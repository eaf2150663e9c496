//! What the supervisor does without being asked: looks whether the file has changed, for alarms, so that the log tells of them
//! although nobody asks, and for what the process lacks; tells the service manager that it is alive, and has it keep the
//! listeners' sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::build::inherited_sockets::lend;
use crate::build::service_manager::{ServiceManager, watchdog_interval};
use crate::build::socket_activation::Store;
use crate::observe::host_watch::Lookout;
use crate::observe::resource_watch::Shortages;
use crate::observe::snapshot::Alarm;
use crate::plan::identity::ListenerKey;
use crate::supervisor::Supervisor;
use crate::supervisor::config_watch::Watch;
use crate::supervisor::reload::Wish;

/// Time between two looks for alarms where something must not fall silent.
const EXPECTING: Duration = Duration::from_secs(1);
/// The same where nothing is expected.
const UNEXPECTING: Duration = Duration::from_secs(3);
/// The longest: a look takes at most a hundredth of the time up to here.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What is due from time to time.
pub struct Chores {
    service: ServiceManager,
    store: Store,
    watch: Option<Watch>,
    shortages: Shortages,
    /// Half of the time that the service manager waits for a sign of life, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
    lookout: Lookout,
    /// When to look for alarms next.
    look: Instant,
}

impl Chores {
    /// With the service manager that has started this process, if there is one.
    pub fn new() -> Chores {
        let service = ServiceManager::this().unwrap_or_else(|error| {
            log::warn!("the service manager cannot be reached ($NOTIFY_SOCKET): {error}");
            ServiceManager::default()
        });
        let watchdog = watchdog_interval().map(|interval| (interval / 2, Instant::now()));
        let (lookout, look) = (Lookout::start(), Instant::now() + EXPECTING);
        let (store, shortages) = (Store::new(service.clone()), Shortages::new());
        Chores {
            store,
            service,
            watch: None,
            shortages,
            watchdog,
            lookout,
            look,
        }
    }

    /// Another process has had these listeners' sockets kept, so many of each.
    pub fn go_on(&mut self, kept: impl Iterator<Item = (ListenerKey, usize)>) {
        self.store.inherit(kept);
    }

    /// How long the supervisor may wait for anything else.
    pub fn patience(&self) -> Duration {
        let watch = self.watch.as_ref().map(Watch::next);
        let others = watch
            .into_iter()
            .chain(self.watchdog.map(|(_, next)| next))
            .chain([self.look]);
        let first = others.fold(self.shortages.next(), Instant::min);
        first.saturating_duration_since(Instant::now())
    }

    /// Whether the sockets outlive this process. Where the unit wants none kept (`FileDescriptorStoreMax=0`), the service manager
    /// does not say so: then what comes in the last moment goes with the sockets.
    pub fn has_heir(&self) -> bool {
        self.service.is_there()
    }

    /// The service manager that has started this process, if there is one.
    pub fn service(&self) -> &ServiceManager {
        &self.service
    }

    /// Alarms of what the host shows.
    pub fn found(&self) -> Vec<Alarm> {
        self.lookout.found()
    }
}

impl Supervisor {
    /// Does what is due.
    pub(crate) fn do_chores(&mut self) {
        let now = Instant::now();
        if let Some(watch) = &mut self.chores.watch
            && watch.is_changed(&self.running.config.source, now)
        {
            log::info!(
                "{} has changed: reading it again",
                self.running.config.source.name()
            );
            self.reload(Wish::silent());
        }
        self.chores
            .shortages
            .look(now, &self.office.requests.troubles);
        if let Some((interval, next)) = &mut self.chores.watchdog
            && *next <= now
        {
            *next = now + *interval;
            // A worker that stands still is what the watchdog is there for.
            match self.running.ledgers().iter().all(Option::is_some) {
                true => tell(self.chores.service.alive()),
                false => log::error!(
                    "a worker does not answer: the service manager gets no sign of life"
                ),
            }
        }
        if self.chores.look <= now {
            // Whoever makes a snapshot writes the log of its alarms.
            self.snapshot();
            let is_expecting = self
                .running
                .config
                .routes
                .iter()
                .any(|route| !route.expectations.is_empty());
            let step = if is_expecting { EXPECTING } else { UNEXPECTING };
            self.chores.look = Instant::now() + (100 * now.elapsed()).clamp(step, LOOK_MAX);
        }
    }

    /// Everything is bound and runs: at the start, and after each change.
    pub fn tell_ready(&mut self) {
        let config = &self.running.config;
        let watch = self.chores.watch.take();
        self.chores.watch = config
            .daemon
            .watch
            .then(|| watch.unwrap_or_else(|| Watch::new(Instant::now())));
        self.chores.lookout.watch(config, &self.running.plan);
        tell(
            self.chores
                .service
                .ready(std::process::id(), &self.summary()),
        );
        if let Err(error) = self.keep_sockets() {
            log::warn!(
                "the service manager does not keep the sockets: {error}; a crash will lose what they hold"
            );
        }
    }

    /// A change begins.
    pub(crate) fn tell_reloading(&self) {
        tell(self.chores.service.reloading());
    }

    /// The end begins.
    pub(crate) fn tell_stopping(&self) {
        tell(self.chores.service.stopping());
    }

    /// Has the service manager keep the listeners' sockets, so that they outlive a crash.
    fn keep_sockets(&mut self) -> io::Result<()> {
        if !self.chores.service.is_there() {
            return Ok(());
        }
        let workers: Vec<_> = self.running.handles().cloned().collect();
        let lent = lend(&workers).map_err(io::Error::other)?;
        let keys = self.running.outline.listeners.iter().enumerate();
        let sockets: Vec<(ListenerKey, Vec<BorrowedFd<'_>>)> = keys
            .map(|(number, listener)| {
                let own = lent
                    .iter()
                    .filter(|(seat, _)| seat.listener == number)
                    .map(|(_, socket)| socket.as_fd());
                (listener.key.clone(), own.collect())
            })
            .collect();
        self.chores.store.keep(&sockets)
    }
}

/// The service manager is told what happens for its own sake: that it does not hear changes nothing here.
fn tell(told: io::Result<()>) {
    if let Err(error) = told {
        log::debug!("the service manager cannot be told: {error}");
    }
}
