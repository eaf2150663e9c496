//! A forwarder's handle on one upstream in one worker: its one-way socket, its PROXY header and its TTL.

use std::net::SocketAddr;

use super::admission::Admission;
use super::outgoing::Outgoing;
use crate::config::kind::OpenedUpstream;
use crate::config::upstream::{SendFrom, Upstream};
use crate::dispatch::handler::{Context, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::proxy_header::{HEADER_MAX_BYTES, proxy_v2};
use crate::dispatch::verdict::DropReason;

/// The highest TTL to a group without a configured TTL. It is enough for a site, and ends a loop of forwarders after a
/// few turns.
const GROUP_TTL_MAX: u8 = 16;

/// A forwarder's handle on one upstream.
pub struct UpstreamHandle {
    /// The number of the upstream in the plan.
    pub id: UpstreamId,
    /// The one-way socket, which is open from the start.
    pub socket: UpstreamSocketId,
    /// The current address, if it is known.
    pub address: Option<SocketAddr>,
    /// The selection of the datagrams that the upstream gets.
    pub admission: Admission,
    proxy: bool,
    keeps_source: bool,
    /// Whether the TTL is fixed, and so set on the sockets.
    has_ttl: bool,
    /// The upper limit of the TTL; `None` unless the upstream is a group.
    group_ttl: Option<u8>,
}

impl UpstreamHandle {
    /// Builds a handle on an opened upstream. `proxy` is whether a PROXY header precedes each datagram.
    pub fn new(
        opened: OpenedUpstream,
        upstream: &Upstream,
        proxy: bool,
        admission: Admission,
    ) -> UpstreamHandle {
        UpstreamHandle {
            id: opened.upstream,
            socket: opened.socket,
            address: opened.address,
            admission,
            proxy,
            keeps_source: upstream.egress.from == SendFrom::Keep,
            has_ttl: upstream.egress.ttl.is_some() && !upstream.is_group(),
            group_ttl: upstream
                .is_group()
                .then(|| upstream.egress.ttl.unwrap_or(GROUP_TTL_MAX)),
        }
    }

    /// Returns whether a train can pass whole: no datagram of it is omitted or changed.
    pub fn is_plain(&self) -> bool {
        self.admission.is_open() && !self.proxy && !self.keeps_source
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
        self.pass_one(socket, outgoing, ttl, cx)
    }

    fn pass_one(
        &mut self,
        socket: UpstreamSocketId,
        outgoing: &Outgoing<'_>,
        ttl: Option<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let mut train = *outgoing.train;
        debug_assert_eq!(train.datagrams(), 1, "samples and rates count datagrams");
        self.admission.admit(cx.now())?;
        if self.proxy {
            let mut header = [0; HEADER_MAX_BYTES];
            let used = proxy_v2(train.envelope.src, train.envelope.dst, &mut header);
            train.span = cx.keep_parts([&header[..used], outgoing.bytes()])?;
        }
        if self.keeps_source {
            cx.keep_source(socket, &train, ttl);
        } else {
            cx.forward(socket, &train, ttl);
        }
        Ok(())
    }

    /// Returns the TTL to send with; `None` for the socket's own. It is never 1 to a group: senders to groups start
    /// with that value, which must differ from the end of a loop.
    fn ttl(&self, ttl: Option<u8>) -> Result<Option<u8>, DropReason> {
        match (self.group_ttl, ttl) {
            (Some(_), Some(0 | 1)) => Err(DropReason::TtlSpent),
            (Some(max), Some(ttl)) => Ok(Some(ttl.min(max))),
            (Some(max), None) => Ok(Some(max)),
            (None, _) if self.has_ttl => Ok(None),
            (None, ttl) => Ok(ttl),
        }
    }
}
