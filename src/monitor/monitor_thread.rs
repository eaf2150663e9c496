//! The monitor thread: waits for probes, look-ups and deadlines, and publishes what changed.
//!
//! It blocks only in its poll; look-ups run on their own threads.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Events, Poll, Token, Waker};

use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::monitor::monitored::{MonitoredUpstream, News, Outside, UpstreamState};
use crate::monitor::prober::Prober;
use crate::monitor::resolver::{CompletedLookup, Resolver};

const EVENTS_MAX: usize = 256;
/// The token of the waker. Probes have the tokens from 0.
const MESSAGES: Token = Token(usize::MAX);

/// A message to the monitor thread.
#[derive(Debug)]
pub enum MonitorMessage {
    /// A look-up has ended.
    LookedUp(CompletedLookup),
    /// Stop the thread.
    Stop,
}

/// The state of the monitor thread.
pub struct MonitorThread {
    poll: Poll,
    waker: Arc<Waker>,
    messages: Receiver<MonitorMessage>,
    /// The channel on which look-up threads send their results.
    sender: Sender<MonitorMessage>,
    resolver: Resolver,
    prober: Prober,
    outside: Outside,
    states: Arc<Mutex<Vec<UpstreamState>>>,
    news: Vec<News>,
}

impl MonitorThread {
    /// Returns a monitor thread, and the channel and waker to reach it: send a message, then wake.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the poll cannot be created.
    pub fn new(
        monitored_upstreams: &[Arc<MonitoredUpstream>],
        outside: Outside,
        states: Arc<Mutex<Vec<UpstreamState>>>,
    ) -> io::Result<(MonitorThread, Sender<MonitorMessage>, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), MESSAGES)?);
        let (sender, messages) = unbounded();
        let start = Instant::now();
        let resolver = Resolver::new(monitored_upstreams, start);
        let prober = Prober::new(monitored_upstreams, poll.registry().try_clone()?, start);
        let monitor_thread = MonitorThread {
            poll,
            waker: Arc::clone(&waker),
            messages,
            sender: sender.clone(),
            resolver,
            prober,
            outside,
            states,
            news: Vec::new(),
        };
        Ok((monitor_thread, sender, waker))
    }

    /// Returns whether the thread would never have anything to do.
    pub fn is_idle(&self) -> bool {
        self.resolver.is_empty() && self.prober.is_empty()
    }

    /// Runs until a stop message arrives.
    pub fn run(mut self) {
        let _panic_report = PanicReport;
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let wake_at = self
                .resolver
                .wake_at()
                .into_iter()
                .chain(self.prober.wake_at())
                .min();
            let timeout = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
            // An interrupted poll returns no events; the next one returns them all.
            let _ = self.poll.poll(&mut events, timeout);
            let now = Instant::now();
            for event in &events {
                self.prober.on_event(event.token(), now, &mut self.news);
            }
            if !self.read_messages(now) {
                return;
            }
            self.prober.on_time(now, &mut self.news);
            self.look_up(now);
            self.publish(now);
        }
    }

    /// Processes all messages. Returns `false` if the thread must stop.
    fn read_messages(&mut self, now: Instant) -> bool {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                MonitorMessage::Stop => return false,
                MonitorMessage::LookedUp(lookup) => {
                    self.resolver
                        .on_result(lookup, now, &mut self.outside.permit, &mut self.news);
                }
            }
        }
        true
    }

    fn look_up(&mut self, now: Instant) {
        while let Some((place, name)) = self.resolver.next_look_up(now, &mut self.news) {
            let name = name.to_owned();
            let sender = self.sender.clone();
            let waker = Arc::clone(&self.waker);
            let look_up = Arc::clone(&self.outside.look_up);
            let work = move || {
                let result = look_up(&name).map_err(|error| error.to_string());
                // The monitor thread may have ended meanwhile.
                let _ = sender.send(MonitorMessage::LookedUp(CompletedLookup { place, result }));
                let _ = waker.wake();
            };
            if let Err(error) = thread::Builder::new()
                .name("look-up".to_owned())
                .spawn(work)
            {
                let why = format!("cannot start a thread for the look-up: {error}");
                let failed = CompletedLookup {
                    place,
                    result: Err(why),
                };
                self.resolver
                    .on_result(failed, now, &mut self.outside.permit, &mut self.news);
            }
        }
    }

    /// Publishes changes: to the workers, to the views, and to the log.
    fn publish(&mut self, now: Instant) {
        for news in std::mem::take(&mut self.news) {
            match news {
                News::UpstreamEvent(id, event) => {
                    // Update the views first, so that they show each change that a worker acts on.
                    self.update(id, |state| state.apply(event, now));
                    (self.outside.notify)(id, event);
                    if let UpstreamEvent::Moved(address) = event {
                        self.prober.on_moved(id, address, now);
                    }
                }
                News::Failed(id, failure) => {
                    self.update(id, |state| state.failed = Some((now, failure)));
                }
                News::Log(level, text) => log::log!(level, "{text}"),
            }
        }
    }

    fn update(&self, id: UpstreamId, change: impl FnOnce(&mut UpstreamState)) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut states[id.index()]);
    }
}

impl UpstreamState {
    fn apply(&mut self, event: UpstreamEvent, now: Instant) {
        match event {
            UpstreamEvent::Alive(alive) => self.alive = alive,
            UpstreamEvent::Moved(address) => self.address = Some::<SocketAddr>(address),
            UpstreamEvent::Drain(_) => return,
        }
        self.changed = Some(now);
    }
}

/// A panic in this thread must not end the daemon, and must be reported.
struct PanicReport;

impl Drop for PanicReport {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!(
                "the monitor of upstreams panicked; the message above says where. Datagrams are still forwarded, but \
                 addresses and health no longer change. Please report this defect, and restart the daemon"
            );
        }
    }
}
