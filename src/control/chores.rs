//! What the supervisor does without being asked: looks whether the file has changed, tells the service manager that it is alive,
//! and has it keep the listeners' sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::given::Store;
use super::handover::outline::ListenerKey;
use super::held::lend;
use super::reload::Wish;
use super::service_manager::{ServiceManager, watchdog_interval};
use super::supervisor::Supervisor;
use super::watch::Watch;

/// What is due from time to time.
pub struct Chores {
    service: ServiceManager,
    store: Store,
    watch: Option<Watch>,
    /// Half of the time that the service manager waits for a sign of life, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
}

impl Chores {
    /// With the service manager that has started this process, if there is one.
    pub fn new() -> Chores {
        let service = ServiceManager::this().unwrap_or_else(|error| {
            log::warn!("the service manager cannot be reached ($NOTIFY_SOCKET): {error}");
            ServiceManager::default()
        });
        let watchdog = watchdog_interval().map(|interval| (interval / 2, Instant::now()));
        Chores { store: Store::new(service.clone()), service, watch: None, watchdog }
    }

    /// How long the supervisor may wait for anything else.
    pub fn patience(&self) -> Option<Duration> {
        let watch = self.watch.as_ref().map(Watch::next);
        let first = watch.into_iter().chain(self.watchdog.map(|(_, next)| next)).min();
        first.map(|first| first.saturating_duration_since(Instant::now()))
    }
}

impl Supervisor {
    /// Does what is due.
    pub(super) fn do_chores(&mut self) {
        let now = Instant::now();
        if let Some(watch) = &mut self.chores.watch
            && watch.is_changed(self.running.config.source.path(), now)
        {
            log::info!("{} has changed: reading it again", self.running.config.source.name());
            self.reload(Wish::silent());
        }
        if let Some((interval, next)) = &mut self.chores.watchdog
            && *next <= now
        {
            *next = now + *interval;
            // A worker that stands still is what the watchdog is there for.
            match self.running.ledgers().iter().all(Option::is_some) {
                true => tell(self.chores.service.alive()),
                false => log::error!("a worker does not answer: the service manager gets no sign of life"),
            }
        }
    }

    /// Everything is bound and runs: at the start, and after each change.
    pub fn tell_ready(&mut self) {
        let config = &self.running.config;
        self.chores.watch = config.daemon.watch.then(|| Watch::new(config.source.path(), Instant::now()));
        tell(self.chores.service.ready(std::process::id(), &self.summary()));
        if let Err(error) = self.keep_sockets() {
            log::warn!("the service manager does not keep the sockets: {error}; a crash will lose what they hold");
        }
    }

    /// A change begins.
    pub(super) fn tell_reloading(&self) {
        tell(self.chores.service.reloading());
    }

    /// The end begins.
    pub(super) fn tell_stopping(&self) {
        tell(self.chores.service.stopping());
    }

    /// Has the service manager keep the listeners' sockets, so that they outlive a crash.
    fn keep_sockets(&mut self) -> io::Result<()> {
        if !self.chores.service.is_there() {
            return Ok(());
        }
        let workers: Vec<_> = self.running.handles().cloned().collect();
        let lent = lend(&workers).ok_or_else(|| io::Error::other("no more files may be open"))?;
        let keys = self.running.outline.listeners.iter().enumerate();
        let sockets: Vec<(ListenerKey, Vec<BorrowedFd<'_>>)> = keys
            .map(|(number, listener)| {
                let own = lent.iter().filter(|(seat, _)| seat.listener == number).map(|(_, socket)| socket.as_fd());
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
