//! The thread that looks after the upstreams: waits for probes, look-ups and the time, and passes on what is new.
//!
//! Never blocks but in its poll: look-ups are begun on threads of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Events, Poll, Token, Waker};

use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::monitor::monitored::{News, Outside, State, Ward};
use crate::monitor::prober::Prober;
use crate::monitor::resolver::{Answer, Resolver};

const EVENTS_MAX: usize = 256;
/// Probes have the tokens from 0.
const LETTERS: Token = Token(usize::MAX);

/// What others tell the keeper.
#[derive(Debug)]
pub enum Letter {
    /// A look-up, by its number, has come to this.
    Answer(usize, Answer),
    /// It is enough.
    Stop,
}

/// Everything that the thread has.
pub struct Keeper {
    poll: Poll,
    waker: Arc<Waker>,
    letters: Receiver<Letter>,
    /// For look-ups to answer.
    sender: Sender<Letter>,
    resolver: Resolver,
    prober: Prober,
    outside: Outside,
    states: Arc<Mutex<Vec<State>>>,
    news: Vec<News>,
}

impl Keeper {
    /// A keeper, and how to write to it: send, then wake.
    pub fn new(
        wards: &[Ward],
        outside: Outside,
        states: Arc<Mutex<Vec<State>>>,
    ) -> io::Result<(Keeper, Sender<Letter>, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), LETTERS)?);
        let (sender, letters) = unbounded();
        let start = Instant::now();
        let resolver = Resolver::new(wards, start);
        let prober = Prober::new(wards, poll.registry().try_clone()?, start);
        let (news, others) = (Vec::new(), (sender.clone(), Arc::clone(&waker)));
        Ok((
            Keeper {
                poll,
                waker,
                letters,
                sender,
                resolver,
                prober,
                outside,
                states,
                news,
            },
            others.0,
            others.1,
        ))
    }

    /// Whether it would never have anything to do.
    pub fn is_idle(&self) -> bool {
        self.resolver.is_empty() && self.prober.is_empty()
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        let _farewell = Farewell;
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let wake_at = self
                .resolver
                .wake_at()
                .into_iter()
                .chain(self.prober.wake_at())
                .min();
            let timeout = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
            // An interrupted poll brings no events; the next one brings them all.
            let _ = self.poll.poll(&mut events, timeout);
            let now = Instant::now();
            for event in &events {
                self.prober.on_event(event.token(), now, &mut self.news);
            }
            if !self.read_letters(now) {
                return;
            }
            self.prober.on_time(now, &mut self.news);
            self.look_up(now);
            self.publish(now);
        }
    }

    /// `false` when it is told to stop.
    fn read_letters(&mut self, now: Instant) -> bool {
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Stop => return false,
                Letter::Answer(name, answer) => {
                    self.resolver.on_answer(
                        name,
                        answer,
                        now,
                        &mut self.outside.permit,
                        &mut self.news,
                    );
                }
            }
        }
        true
    }

    fn look_up(&mut self, now: Instant) {
        while let Some((place, name)) = self.resolver.next_look_up(now, &mut self.news) {
            let (sender, waker, look_up) = (
                self.sender.clone(),
                Arc::clone(&self.waker),
                &self.outside.look_up,
            );
            let (look_up, name) = (Arc::clone(look_up), name.to_owned());
            let work = move || {
                let answer = look_up(&name).map_err(|error| error.to_string());
                // The keeper may have ended meanwhile.
                let _ = sender.send(Letter::Answer(place, answer));
                let _ = waker.wake();
            };
            if let Err(error) = thread::Builder::new()
                .name("look-up".to_owned())
                .spawn(work)
            {
                let why = format!("no thread can be had for the look-up: {error}");
                self.resolver.on_answer(
                    place,
                    Err(why),
                    now,
                    &mut self.outside.permit,
                    &mut self.news,
                );
            }
        }
    }

    /// Passes on what is new: to the workers, to the views, to the log.
    fn publish(&mut self, now: Instant) {
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Change(id, change) => {
                    // First, so that whoever hears of a change also sees it.
                    self.note(id, |state| state.change(change, now));
                    (self.outside.tell)(id, change);
                    if let Change::Moved(address) = change {
                        self.prober.on_moved(id, address, now);
                    }
                }
                News::Failed(id, failure) => {
                    self.note(id, |state| state.failed = Some((now, failure)))
                }
                News::Say(level, text) => log::log!(level, "{text}"),
            }
        }
    }

    fn note(&self, id: UpstreamId, change: impl FnOnce(&mut State)) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut states[id.index()]);
    }
}

impl State {
    fn change(&mut self, change: Change, now: Instant) {
        match change {
            Change::Alive(alive) => self.alive = alive,
            Change::Moved(address) => self.address = Some::<SocketAddr>(address),
            Change::Drain(_) => return,
        }
        self.changed = Some(now);
    }
}

/// A defect here must not end the daemon, and must not go unnoticed.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!(
                "the upkeep of upstreams has ended by a defect; the message above says where. Datagrams still flow, but \
                 addresses and health stay as they are now. Please report it, and restart"
            );
        }
    }
}
