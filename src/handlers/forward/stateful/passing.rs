//! The forwarding of a session's requests: the choice of upstreams and of the session's sockets.

use super::Stateful;
use crate::dispatch::handler::Context;
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::sessions::SessionId;
use crate::dispatch::verdict::DropReason;
use crate::handlers::forward::fanout::Fanout;
use crate::handlers::forward::outgoing::Outgoing;

impl Stateful {
    /// Forwards a train of a session. The train stays whole if no upstream counts single datagrams.
    pub(super) fn pass_on(
        &mut self,
        id: SessionId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        if self.upstreams.is_plain && self.upstreams.fanout != Fanout::PerDatagram {
            return self.pass_piece(id, outgoing, cx);
        }
        outgoing.pass_singly(cx, |datagram, cx| self.pass_piece(id, datagram, cx));
        Ok(())
    }

    fn pass_piece(
        &mut self,
        id: SessionId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        match self.upstreams.fanout {
            Fanout::PerDatagram => return self.pass_to_picked(id, outgoing, cx),
            Fanout::PerSession if !self.upstreams.pool.is_all_alive() => {
                self.renew_choice(id, outgoing, cx)?;
            }
            Fanout::PerSession | Fanout::All => {}
        }
        self.pass_to_legs(id, outgoing, cx)
    }

    /// Forwards a train or a datagram through each socket of the session. It succeeds if at least one upstream, other
    /// than a shadow, accepts it.
    fn pass_to_legs(
        &mut self,
        id: SessionId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let mut passed = Err(DropReason::NoUpstream);
        for leg in 0..self.legs() {
            let Some(socket) = self.table.legs(id)[leg] else {
                continue;
            };
            let Some(place) = self.source_ports.place(socket) else {
                continue;
            };
            let got = self.pass_leg(socket, place, outgoing, cx);
            // Losses of a shadow are counted in the shadow's own row.
            if !self.upstreams.settings.upstream_options[place].shadow {
                passed = passed.or(got);
            }
        }
        passed
    }

    /// Forwards a datagram to the upstream that is picked for it, and to the shadows.
    fn pass_to_picked(
        &mut self,
        id: SessionId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let place = self.pick(outgoing).ok_or(DropReason::NoUpstream)?;
        let socket = self.leg(id, place, cx)?;
        for at in 0..self.upstreams.shadows.len() {
            let shadow = self.upstreams.shadows[at];
            if let Some(socket) = self.table.legs(id)[shadow] {
                // Losses of a shadow are counted in the shadow's own row.
                let _ = self.pass_leg(socket, shadow, outgoing, cx);
            }
        }
        self.pass_leg(socket, place, outgoing, cx)
    }

    fn pass_leg(
        &mut self,
        socket: UpstreamSocketId,
        place: usize,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        self.upstreams.handles[place].pass(socket, outgoing, cx)?;
        let datagrams = outgoing.train.datagrams();
        self.source_ports.requested(socket, datagrams);
        self.upstreams.requested(place, datagrams, cx.now());
        Ok(())
    }

    /// Picks an upstream; `None` if none is fit.
    pub(super) fn pick(&mut self, outgoing: &Outgoing<'_>) -> Option<usize> {
        let source_ports = &self.source_ports;
        self.upstreams
            .pick(outgoing, |place| source_ports.sessions(place))
    }

    /// Returns the session's socket to an upstream, and leases one if the session has none yet.
    fn leg(
        &mut self,
        id: SessionId,
        place: usize,
        cx: &mut Context<'_>,
    ) -> Result<UpstreamSocketId, DropReason> {
        if let Some(socket) = self.table.legs(id)[place] {
            return Ok(socket);
        }
        let socket = self.source_ports.lease(place, cx)?;
        self.source_ports.assign(socket, id);
        self.table.legs(id)[place] = Some(socket);
        Ok(socket)
    }

    /// Moves a session whose upstream has died to another one, if another one is alive.
    fn renew_choice(
        &mut self,
        id: SessionId,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let Some(socket) = self.table.legs(id)[0] else {
            return Err(DropReason::NoUpstream);
        };
        let Some(place) = self.source_ports.place(socket) else {
            return Err(DropReason::NoUpstream);
        };
        // If no upstream is alive, the present one is as good as any. Another pick would also advance the round-robin
        // position.
        if self.upstreams.pool.members()[place].alive || self.upstreams.pool.is_fit(place) {
            return Ok(());
        }
        let Some(other) = self.pick(outgoing) else {
            return Ok(());
        };
        if other == place || !self.upstreams.pool.members()[other].alive {
            return Ok(());
        }
        let new = self.source_ports.lease(other, cx)?;
        self.source_ports.assign(new, id);
        self.table.legs(id)[0] = Some(new);
        let seen = self.table.get(id).seen;
        // Thousands of sessions may move at once, and the dead upstream does not need the ports that they leave.
        self.source_ports.spoil(socket);
        self.source_ports.release(socket, seen, cx);
        Ok(())
    }
}
