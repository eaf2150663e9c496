//! The common part of forwarders with and without sessions: the upstreams, the choice among them, and their health.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{Choice, HashOn, Settings};
use super::fanout::Fanout;
use super::flow_hash::key_of;
use super::outgoing::Outgoing;
use super::upstream_handle::UpstreamHandle;
use crate::datagram::Envelope;
use crate::dispatch::handler::{Context, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::ledger::UpstreamCount;
use crate::dispatch::passive_health::PassiveHealth;
use crate::dispatch::pool::{Pick, Pool};
use crate::dispatch::reply_policy::decrement_ttl;
use crate::dispatch::time::Time;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::dispatch::verdict::DropReason;

/// The upstreams of one forwarder in one worker.
pub struct UpstreamSet {
    /// The checked settings of the handler.
    pub settings: Arc<Settings>,
    /// The spread of a client's datagrams over the upstreams.
    pub fanout: Fanout,
    /// The upstreams, in the order of the file.
    pub handles: Vec<UpstreamHandle>,
    /// The upstreams to pick from: all but the shadows, which are never fit.
    pub pool: Pool,
    /// The passive health of each upstream, if there are no probes.
    passive_health: Option<Vec<PassiveHealth>>,
    /// The indexes of the shadows in `handles`.
    pub shadows: Vec<usize>,
    /// Whether no upstream counts or changes single datagrams on their way.
    pub is_plain: bool,
    /// Whether trains can pass whole: no upstream counts their datagrams, and all datagrams of a flow go to the same
    /// upstream.
    is_whole: bool,
}

impl UpstreamSet {
    /// Combines the parts, and derives from the settings whether passive health applies.
    pub fn new(settings: Arc<Settings>, handles: Vec<UpstreamHandle>, pool: Pool) -> UpstreamSet {
        let fanout = Fanout::of(&settings);
        let has_passive_health =
            settings.monitor.probe.is_none() && handles.len() > 1 && fanout != Fanout::All;
        let upstream_options = settings.upstream_options.iter().enumerate();
        let shadows = upstream_options
            .filter(|(_, options)| options.shadow)
            .map(|(place, _)| place)
            .collect();
        let is_plain = handles.iter().all(UpstreamHandle::is_plain);
        UpstreamSet {
            passive_health: has_passive_health
                .then(|| vec![PassiveHealth::default(); handles.len()]),
            fanout,
            shadows,
            is_plain,
            is_whole: is_plain && stays_together(&settings),
            settings,
            handles,
            pool,
        }
    }

    /// Returns the TTL to send with: one less than the received one, so that loops of forwarders end. A datagram to a
    /// group that arrives with a TTL of 1 is exempt. Senders to groups use that TTL by default (IP_MULTICAST_TTL in
    /// ip(7)), so it marks a start and not the end of a loop.
    ///
    /// # Errors
    ///
    /// Returns the drop reason if the TTL is spent.
    pub fn decrement_ttl(&self, envelope: &Envelope) -> Result<Option<u8>, DropReason> {
        let fixed = self.settings.reply_policy.ttl;
        if envelope.ttl == Some(1) && envelope.dst.ip().is_multicast() {
            return Ok(fixed);
        }
        decrement_ttl(envelope.ttl, fixed)
    }

    /// Forwards a train without a session.
    pub fn pass_on(&mut self, outgoing: &Outgoing<'_>, cx: &mut Context<'_>) {
        if !self.is_whole {
            outgoing.pass_singly(cx, |datagram, cx| self.pass_one_way(datagram, cx));
        } else if let Err(reason) = self.pass_one_way(outgoing, cx) {
            outgoing.drop_all(reason, cx);
        }
    }

    /// Forwards a train or a datagram to the upstreams chosen for it. It succeeds if at least one of them, other than a
    /// shadow, accepts it.
    fn pass_one_way(
        &mut self,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        if self.fanout == Fanout::All {
            return self.pass_to_all(outgoing, cx);
        }
        let picked = self.pick(outgoing, |_| 0).ok_or(DropReason::NoUpstream)?;
        let handle = &mut self.handles[picked];
        let passed = handle.pass(handle.socket, outgoing, cx);
        for &shadow in &self.shadows {
            if self.pool.is_fit_for_all(shadow) {
                let handle = &mut self.handles[shadow];
                // Losses of a shadow are counted in the shadow's own row.
                let _ = handle.pass(handle.socket, outgoing, cx);
            }
        }
        passed
    }

    /// Forwards a train or a datagram to all upstreams that are fit for it, and copies it to the shadows.
    fn pass_to_all(
        &mut self,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let mut passed = Err(DropReason::NoUpstream);
        for (place, handle) in self.handles.iter_mut().enumerate() {
            if !self.pool.is_fit_for_all(place) {
                continue;
            }
            let got = handle.pass(handle.socket, outgoing, cx);
            // Losses of a shadow are counted in the shadow's own row.
            if !self.settings.upstream_options[place].shadow {
                passed = passed.or(got);
            }
        }
        passed
    }

    /// Picks the upstream for a datagram; `None` if none is fit. `sessions` returns the number of sessions of an
    /// upstream by its index.
    pub fn pick(
        &mut self,
        outgoing: &Outgoing<'_>,
        sessions: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let on = self.settings.hash_on;
        self.pool.pick(
            || key_of(on, &outgoing.train.envelope, outgoing.bytes()),
            sessions,
        )
    }

    /// Returns the index of the upstream that a one-way socket leads to.
    pub fn place_of(&self, socket: UpstreamSocketId) -> Option<usize> {
        self.handles
            .iter()
            .position(|handle| handle.socket == socket)
    }

    /// Returns whether an address is that of an upstream. An upstream that became a client of its own forwarder would
    /// receive its own replies in an endless loop.
    pub fn is_upstream(&self, address: SocketAddr) -> bool {
        self.handles
            .iter()
            .any(|handle| handle.address == Some(address))
    }

    /// Returns the index of an upstream in `handles`.
    pub fn place(&self, upstream: UpstreamId) -> Option<usize> {
        self.handles.iter().position(|handle| handle.id == upstream)
    }

    /// Records requests to an upstream in its passive health.
    pub fn requested(&mut self, place: usize, datagrams: u32, now: Time) {
        self.update_health(place, |health| health.requested(u64::from(datagrams), now));
    }

    /// Records a reply of an upstream in its passive health.
    pub fn replied(&mut self, place: usize) {
        self.update_health(place, PassiveHealth::replied);
    }

    /// Records an ICMP error of an upstream in its passive health.
    pub fn refused(&mut self, place: usize, now: Time) {
        self.update_health(place, |health| health.refused(now));
    }

    /// Returns the passive health of an upstream; the default if it is not used.
    pub fn health_of(&self, place: usize) -> PassiveHealth {
        self.passive_health
            .as_ref()
            .map_or(PassiveHealth::default(), |passive_health| {
                passive_health[place]
            })
    }

    /// Restores the passive health of an upstream from saved state.
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

    /// Applies a change of an upstream's address, health or drain state.
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

    /// Tries upstreams again that have been avoided for long enough.
    pub fn pass_time(&mut self, now: Time) {
        (0..self.handles.len())
            .for_each(|place| self.update_health(place, |health| health.pass_time(now)));
    }

    /// Returns the next time at which an avoided upstream is to be tried again.
    pub fn deadline(&self) -> Option<Time> {
        self.passive_health
            .iter()
            .flatten()
            .filter_map(PassiveHealth::deadline)
            .min()
    }

    /// Adds the counts and gauges of each upstream to its row.
    pub fn account(&self, upstreams: &mut [UpstreamCount]) {
        for (place, handle) in self.handles.iter().enumerate() {
            let count = &mut upstreams[handle.id.index()];
            count.counters.skipped += handle.admission.skipped();
            let member = &self.pool.members()[place];
            count.dead_in += u32::from(!member.alive);
            count.draining_in += u32::from(member.drain);
        }
    }
}

/// Returns whether all datagrams of one flow go to the same upstream.
fn stays_together(settings: &Settings) -> bool {
    match settings.choice {
        _ if settings.upstreams.len() == 1 => true,
        Choice::All | Choice::One(Pick::FirstAlive) => true,
        Choice::One(Pick::Hash) => !matches!(settings.hash_on, HashOn::Payload { .. }),
        Choice::One(_) => false,
    }
}
