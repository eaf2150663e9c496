//! One upstream as a worker's forwarder sends to it: its sample, its rate, what is put before its datagrams.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{Sample, UpstreamOptions};
use crate::config::kind::OpenedUpstream;
use crate::config::upstream::{SendFrom, Upstream};
use crate::datagram::Train;
use crate::dispatch::handler::{Batch, Context, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::proxy_header::{HEADER_MAX_BYTES, proxy_v2};
use crate::dispatch::rate::RateLimit;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// The highest TTL that goes to a group where none is set: enough for a site, and a loop of forwarders dies soon.
const GROUP_TTL_MAX: u8 = 16;

/// The way to one upstream.
pub struct UpstreamHandle {
    /// Its number.
    pub id: UpstreamId,
    /// Its socket that is there from the start, one way.
    pub socket: UpstreamSocketId,
    /// Where it is, if that is known.
    pub address: Option<SocketAddr>,
    sample: Option<Sampler>,
    rate: Option<Arc<RateLimit>>,
    proxy: bool,
    keeps_source: bool,
    /// A fixed TTL is its sockets' own.
    has_ttl: bool,
    /// The most that a TTL to a group may be.
    group_ttl: Option<u8>,
    /// Datagrams that it did not get for its sample or its rate.
    pub skipped: u64,
}

/// Takes some of many, evenly.
struct Sampler {
    sample: Sample,
    earned: u32,
}

impl UpstreamHandle {
    /// `start` says where the sample begins, so that workers do not all take the same.
    pub fn new(
        opened: OpenedUpstream,
        upstream: &Upstream,
        options: &UpstreamOptions,
        rate: Option<Arc<RateLimit>>,
        start: u64,
    ) -> UpstreamHandle {
        let sampler = |sample: Sample| Sampler {
            sample,
            earned: number::to_u32(number::to_usize(start % u64::from(sample.each))),
        };
        UpstreamHandle {
            id: opened.upstream,
            socket: opened.socket,
            address: opened.address,
            sample: options.sample.map(sampler),
            rate,
            proxy: options.proxy,
            keeps_source: upstream.egress.from == SendFrom::Keep,
            has_ttl: upstream.egress.ttl.is_some() && !upstream.is_group(),
            group_ttl: upstream
                .is_group()
                .then(|| upstream.egress.ttl.unwrap_or(GROUP_TTL_MAX)),
            skipped: 0,
        }
    }

    /// How near the next datagram of its sample is.
    pub fn earned(&self) -> u32 {
        self.sample.as_ref().map_or(0, |sampler| sampler.earned)
    }

    /// Goes on with a sample where another has stopped.
    pub fn restore_earned(&mut self, earned: u32) {
        if let Some(sampler) = &mut self.sample {
            sampler.earned = earned % sampler.sample.each;
        }
    }

    /// Whether a train may pass whole: nothing of it is left out or changed.
    pub fn is_plain(&self) -> bool {
        self.sample.is_none() && self.rate.is_none() && !self.proxy && !self.keeps_source
    }

    /// Passes a train on by `socket`; one datagram at a time unless this handle is plain. `ttl` as damped.
    #[inline]
    pub fn pass(
        &mut self,
        socket: UpstreamSocketId,
        train: &Train,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let ttl = self.ttl(ttl)?;
        if self.is_plain() {
            cx.forward(socket, train, ttl);
            return Ok(());
        }
        self.pass_one(socket, train, batch, ttl, cx)
    }

    fn pass_one(
        &mut self,
        socket: UpstreamSocketId,
        train: &Train,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        debug_assert_eq!(train.datagrams(), 1, "samples and rates count datagrams");
        if self.sample.as_mut().is_some_and(|sampler| !sampler.takes()) {
            self.skipped += 1;
            return Err(DropReason::SampledOut);
        }
        if self.rate.as_ref().is_some_and(|rate| !rate.take(cx.now())) {
            self.skipped += 1;
            return Err(DropReason::RateLimit);
        }
        let mut train = *train;
        if self.proxy {
            let mut header = [0; HEADER_MAX_BYTES];
            let used = proxy_v2(train.envelope.src, train.envelope.dst, &mut header);
            train.span = cx.keep_parts([&header[..used], batch.bytes(train.span)])?;
        }
        match self.keeps_source {
            true => cx.keep_source(socket, &train, ttl),
            false => cx.forward(socket, &train, ttl),
        }
        Ok(())
    }

    /// The TTL to send with; `None` for the socket's own. Never 1 to a group: that is what a sender of its own begins with,
    /// and must be told from the end of a loop.
    fn ttl(&self, damped: Option<u8>) -> Result<Option<u8>, DropReason> {
        match (self.group_ttl, damped) {
            (Some(_), Some(0 | 1)) => Err(DropReason::TtlSpent),
            (Some(max), Some(damped)) => Ok(Some(damped.min(max))),
            (Some(max), None) => Ok(Some(max)),
            (None, _) if self.has_ttl => Ok(None),
            (None, damped) => Ok(damped),
        }
    }
}

impl Sampler {
    fn takes(&mut self) -> bool {
        self.earned += self.sample.taken;
        let takes = self.earned >= self.sample.each;
        if takes {
            self.earned -= self.sample.each;
        }
        takes
    }
}
