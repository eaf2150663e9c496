//! What forwarders have in common, with a way back or without: the upstreams, who of them is picked, and who is thought
//! alive.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{Choice, HashOn, Settings};
use super::flow_hash::key_of;
use super::upstream_handle::UpstreamHandle;
use crate::datagram::{Envelope, Train};
use crate::dispatch::handler::{Batch, Context, UpstreamId};
use crate::dispatch::ledger::UpstreamCount;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::passive_health::PassiveHealth;
use crate::dispatch::pool::{Pick, Pool};
use crate::dispatch::reply_policy::damp;
use crate::dispatch::time::Time;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::dispatch::verdict::{DropReason, Verdict};

/// The upstreams of one forwarder in one worker.
pub struct UpstreamSet {
    /// What the file says.
    pub settings: Arc<Settings>,
    /// The upstreams, in the order of the file.
    pub handles: Vec<UpstreamHandle>,
    /// Those that are picked: all but the shadows, which are never fit.
    pub pool: Pool,
    /// What comes back says of each of them, where there are no probes.
    passive_health: Option<Vec<PassiveHealth>>,
    /// Places of the shadows.
    pub shadows: Vec<usize>,
    /// Whether nothing counts or changes datagrams on the way to any of them.
    pub is_plain: bool,
    /// Whether trains pass whole: nothing counts their datagrams, and all of a flow take the same way.
    is_whole: bool,
}

impl UpstreamSet {
    /// Of the parts.
    pub fn new(settings: Arc<Settings>, handles: Vec<UpstreamHandle>, pool: Pool) -> UpstreamSet {
        let has_passive_health =
            settings.monitor.probe.is_none() && handles.len() > 1 && settings.choice != Choice::All;
        let upstream_options = settings.upstream_options.iter().enumerate();
        let shadows = upstream_options
            .filter(|(_, options)| options.shadow)
            .map(|(place, _)| place)
            .collect();
        let is_plain = handles.iter().all(UpstreamHandle::is_plain);
        UpstreamSet {
            passive_health: has_passive_health
                .then(|| vec![PassiveHealth::default(); handles.len()]),
            shadows,
            is_plain,
            is_whole: is_plain && stays_together(&settings),
            settings,
            handles,
            pool,
        }
    }

    /// One less than the TTL it arrived with, so that forwarders that point at each other stop; except that senders to
    /// groups use a TTL of 1 as a rule (IP_MULTICAST_TTL in ip(7)), which is where such a datagram begins, not where a loop
    /// ends.
    pub fn damp(&self, envelope: &Envelope) -> Result<Option<u8>, DropReason> {
        let fixed = self.settings.reply_policy.ttl;
        if envelope.ttl == Some(1) && envelope.dst.ip().is_multicast() {
            return Ok(fixed);
        }
        damp(envelope.ttl, fixed)
    }

    /// Passes a train on without a way back. `index` is the place of its first datagram in the batch.
    pub fn pass_on(
        &mut self,
        train: &Train,
        index: u32,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) {
        if self.is_whole {
            if let Err(reason) = self.pass_one_way(train, batch, ttl, cx) {
                cx.drop_run(index, train.datagrams(), reason);
            }
            return;
        }
        for (at, datagram) in (index..).zip(train.pieces()) {
            if let Err(reason) = self.pass_one_way(&datagram, batch, ttl, cx) {
                cx.verdict(at, Verdict::Dropped(reason));
            }
        }
    }

    /// Passes a train, or a datagram, on to whom it is for. It is passed on when one of them has got it.
    fn pass_one_way(
        &mut self,
        train: &Train,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let passed = match self.settings.choice {
            Choice::All => {
                let mut passed = Err(DropReason::NoUpstream);
                for (place, handle) in self.handles.iter_mut().enumerate() {
                    if !self.pool.is_fit_for_all(place) {
                        continue;
                    }
                    let got = handle.pass(handle.socket, train, batch, ttl, cx);
                    // What a shadow gets or not is counted there.
                    if !self.settings.upstream_options[place].shadow {
                        passed = passed.or(got);
                    }
                }
                return passed;
            }
            Choice::One(_) => {
                let place = self
                    .pick(train, batch, |_| 0)
                    .ok_or(DropReason::NoUpstream)?;
                let handle = &mut self.handles[place];
                handle.pass(handle.socket, train, batch, ttl, cx)
            }
        };
        for &shadow in self
            .shadows
            .iter()
            .filter(|shadow| self.pool.is_fit_for_all(**shadow))
        {
            let handle = &mut self.handles[shadow];
            // Its losses are its own, and counted there.
            let _ = handle.pass(handle.socket, train, batch, ttl, cx);
        }
        passed
    }

    /// The upstream for a datagram.
    pub fn pick(
        &mut self,
        train: &Train,
        batch: &Batch<'_>,
        sessions: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let on = self.settings.hash_on;
        self.pool.pick(
            || key_of(on, &train.envelope, batch.bytes(train.span)),
            sessions,
        )
    }

    /// The place of the upstream that a one-way socket leads to.
    pub fn place_of(&self, socket: UpstreamSocketId) -> Option<usize> {
        self.handles
            .iter()
            .position(|handle| handle.socket == socket)
    }

    /// Whether somebody is one of the upstreams. Asked for by itself through us, it would answer its own answers for ever.
    pub fn is_upstream(&self, address: SocketAddr) -> bool {
        self.handles
            .iter()
            .any(|handle| handle.address == Some(address))
    }

    /// The place of an upstream.
    pub fn place(&self, upstream: UpstreamId) -> Option<usize> {
        self.handles.iter().position(|handle| handle.id == upstream)
    }

    /// Requests went to an upstream.
    pub fn requested(&mut self, place: usize, datagrams: u32, now: Time) {
        self.update_health(place, |health| health.requested(u64::from(datagrams), now));
    }

    /// An upstream answered.
    pub fn replied(&mut self, place: usize) {
        self.update_health(place, PassiveHealth::replied);
    }

    /// Word came back from an upstream that nobody is there.
    pub fn refused(&mut self, place: usize, now: Time) {
        self.update_health(place, |health| health.refused(now));
    }

    /// What comes back has said of an upstream so far.
    pub fn health_of(&self, place: usize) -> PassiveHealth {
        self.passive_health
            .as_ref()
            .map_or(PassiveHealth::default(), |passive_health| {
                passive_health[place]
            })
    }

    /// Goes on with what came back before.
    pub fn restore_health(&mut self, place: usize, health: PassiveHealth) {
        if let Some(passive_health) = &mut self.passive_health {
            passive_health[place] = health;
        }
    }

    #[inline]
    fn update_health(&mut self, place: usize, act: impl FnOnce(&mut PassiveHealth) -> bool) {
        if let Some(passive_health) = &mut self.passive_health
            && act(&mut passive_health[place])
        {
            let alive = passive_health[place].is_alive();
            self.pool.change(place, |member| member.alive = alive);
        }
    }

    /// Something is new about an upstream.
    pub fn apply(&mut self, upstream: UpstreamId, event: UpstreamEvent) {
        let Some(place) = self.place(upstream) else {
            return;
        };
        if let UpstreamEvent::Moved(address) = event {
            self.handles[place].address = Some(address);
        }
        self.pool.change(place, |member| match event {
            UpstreamEvent::Alive(alive) => member.alive = alive,
            UpstreamEvent::Drain(drain) => member.drain = drain,
            UpstreamEvent::Moved(_) => member.resolved = true,
        });
        if let (UpstreamEvent::Moved(_), Some(passive_health)) = (event, &mut self.passive_health) {
            passive_health[place] = PassiveHealth::default();
            self.pool.change(place, |member| member.alive = true);
        }
    }

    /// Tries again those that have been left alone for long enough.
    pub fn pass_time(&mut self, now: Time) {
        (0..self.handles.len())
            .for_each(|place| self.update_health(place, |health| health.pass_time(now)));
    }

    /// When one of them is to be tried again.
    pub fn deadline(&self) -> Option<Time> {
        self.passive_health
            .iter()
            .flatten()
            .filter_map(PassiveHealth::deadline)
            .min()
    }

    /// What is counted here of each upstream.
    pub fn account(&self, upstreams: &mut [UpstreamCount]) {
        for (place, handle) in self.handles.iter().enumerate() {
            let count = &mut upstreams[handle.id.index()];
            count.skipped += handle.skipped;
            let member = &self.pool.members()[place];
            count.dead_in += u32::from(!member.alive);
            count.draining_in += u32::from(member.drain);
        }
    }
}

/// Whether datagrams of one flow all take the same way.
fn stays_together(settings: &Settings) -> bool {
    match settings.choice {
        _ if settings.upstreams.len() == 1 => true,
        Choice::All | Choice::One(Pick::FirstAlive) => true,
        Choice::One(Pick::Hash) => !matches!(settings.hash_on, HashOn::Payload { .. }),
        Choice::One(_) => false,
    }
}
