//! A forwarder's handle on one upstream in one worker: its sample, its rate limit and its PROXY header.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{Sample, UpstreamOptions};
use super::outgoing::Outgoing;
use crate::config::kind::OpenedUpstream;
use crate::config::upstream::{SendFrom, Upstream};
use crate::dispatch::handler::{Context, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::proxy_header::{HEADER_MAX_BYTES, proxy_v2};
use crate::dispatch::rate::RateLimit;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// Highest TTL to a group without a configured TTL. It is enough for a site, and ends a loop of forwarders soon.
const GROUP_TTL_MAX: u8 = 16;

/// A forwarder's handle on one upstream.
pub struct UpstreamHandle {
    /// Number of the upstream in the plan.
    pub id: UpstreamId,
    /// The one-way socket, which is open from the start.
    pub socket: UpstreamSocketId,
    /// Current address, if it is known.
    pub address: Option<SocketAddr>,
    sample: Option<Sampler>,
    rate: Option<Arc<RateLimit>>,
    proxy: bool,
    keeps_source: bool,
    /// Whether the TTL is fixed, and so set on the sockets.
    has_ttl: bool,
    /// Upper limit of the TTL; `None` unless the upstream is a group.
    group_ttl: Option<u8>,
    /// Datagrams that the sample or the rate limit excluded.
    pub skipped: u64,
}

/// Selects a fraction of the datagrams at even distances.
struct Sampler {
    sample: Sample,
    earned: u32,
}

impl UpstreamHandle {
    /// Builds a handle. `start` offsets the sample, so that workers do not all select the same datagrams.
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

    /// Progress of the sample towards its next selected datagram.
    pub fn earned(&self) -> u32 {
        self.sample.as_ref().map_or(0, |sampler| sampler.earned)
    }

    /// Continues a sample from saved progress.
    pub fn restore_earned(&mut self, earned: u32) {
        if let Some(sampler) = &mut self.sample {
            sampler.earned = earned % sampler.sample.each;
        }
    }

    /// Whether a train can pass whole: no datagram of it is omitted or changed.
    pub fn is_plain(&self) -> bool {
        self.sample.is_none() && self.rate.is_none() && !self.proxy && !self.keeps_source
    }

    /// Forwards a train through `socket`. Unless this handle is plain, the train must be a single datagram.
    ///
    /// # Errors
    ///
    /// Returns the drop reason if the TTL is spent, or the sample or the rate limit excludes the datagram. The outbox
    /// may also have no room for the PROXY header.
    #[inline]
    pub fn pass(
        &mut self,
        socket: UpstreamSocketId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let ttl = self.ttl(outgoing.ttl)?;
        if self.is_plain() {
            cx.forward(socket, outgoing.train, ttl);
            return Ok(());
        }
        self.pass_one(socket, &Outgoing { ttl, ..*outgoing }, cx)
    }

    fn pass_one(
        &mut self,
        socket: UpstreamSocketId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let mut train = *outgoing.train;
        debug_assert_eq!(train.datagrams(), 1, "samples and rates count datagrams");
        if self.sample.as_mut().is_some_and(|sampler| !sampler.takes()) {
            self.skipped += 1;
            return Err(DropReason::SampledOut);
        }
        if self.rate.as_ref().is_some_and(|rate| !rate.take(cx.now())) {
            self.skipped += 1;
            return Err(DropReason::RateLimit);
        }
        if self.proxy {
            let mut header = [0; HEADER_MAX_BYTES];
            let used = proxy_v2(train.envelope.src, train.envelope.dst, &mut header);
            train.span = cx.keep_parts([&header[..used], outgoing.bytes()])?;
        }
        if self.keeps_source {
            cx.keep_source(socket, &train, outgoing.ttl);
        } else {
            cx.forward(socket, &train, outgoing.ttl);
        }
        Ok(())
    }

    /// Returns the TTL to send with; `None` for the socket's own. It is never 1 to a group: senders to groups start
    /// with that value, which must differ from the end of a loop.
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
