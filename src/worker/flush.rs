//! Empties the outbox into the kernel at the end of a turn. Runs of equal size leave as one segmented send, the rest as
//! one batch of messages. Each refusal is classified and counted, and does not stop the flush.

mod items;
mod transmission;

use std::io;

use self::items::Items;
use self::transmission::transmit;
use super::listener::Listener;
use super::send_socket::SendSocket;
use super::upstream_sockets::UpstreamSockets;
use crate::datagram::Span;
use crate::dispatch::handler::Trouble;
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::ledger::{Ledger, Sent};
use crate::dispatch::outbox::{Kept, Outbox, Parcel, Run, SEGMENTS_MAX_OLD, SegmentLimits};
use crate::dispatch::udp_header::{HEADER_BYTES, udp_header};
use crate::net::control_message::Sending;
use crate::net::errno;
use crate::net::send::{MESSAGES_MAX, SendBatch, Sender};

/// The sockets that a flush sends through.
pub struct FlushSockets<'a> {
    /// The listeners. A reply leaves through the listener that received the request.
    pub listeners: &'a mut [Listener],
    /// The upstream sockets, through which everything else leaves.
    pub upstream_sockets: &'a mut UpstreamSockets,
}

/// The outbox and the arena that its spans point into.
#[derive(Clone, Copy)]
struct Content<'a> {
    outbox: &'a Outbox,
    arena: &'a [u8],
}

impl<'a> Content<'a> {
    fn bytes(self, span: Span) -> &'a [u8] {
        self.outbox.bytes(self.arena, span)
    }
}

/// The memory for flushing, which every turn reuses.
#[derive(Default)]
pub struct Flusher {
    sender: Sender,
    runs: Vec<Run>,
    parcels: Vec<Parcel>,
    singles: Vec<Parcel>,
    headers: Vec<Option<[u8; HEADER_BYTES]>>,
}

impl Flusher {
    /// Sends everything in the outbox, counts the results in the ledger, and empties the outbox.
    pub fn flush(
        &mut self,
        sockets: FlushSockets<'_>,
        outbox: &mut Outbox,
        arena: &[u8],
        ledger: &mut Ledger,
    ) {
        let FlushSockets {
            listeners,
            upstream_sockets,
        } = sockets;
        let content = Content { outbox, arena };
        for &socket in content.outbox.touched() {
            self.flush_socket(upstream_sockets, socket, content, ledger);
        }
        for &listener in content.outbox.replying() {
            let replies = content.outbox.replies(listener);
            let mut path = self.path_through(&mut listeners[listener.index()].send_socket, content);
            path.send_all(Items::Replies(replies), &mut |index, sent| {
                ledger.handlers[replies[index].handler.index()].record(sent);
            });
        }
        let kept = content.outbox.kept();
        for kept in kept.chunk_by(|one, next| one.socket == next.socket) {
            self.flush_kept(upstream_sockets, kept, content, ledger);
        }
        outbox.clear();
        upstream_sockets.settle(ledger);
    }

    fn path_through<'a>(
        &'a mut self,
        send_socket: &'a mut SendSocket,
        content: Content<'a>,
    ) -> SendPath<'a> {
        SendPath {
            send_socket,
            sender: &mut self.sender,
            runs: &mut self.runs,
            singles: &mut self.singles,
            content,
        }
    }

    /// Sends the datagrams of one socket with their senders' addresses as source.
    fn flush_kept(
        &mut self,
        upstream_sockets: &mut UpstreamSockets,
        kept: &[Kept],
        content: Content<'_>,
        ledger: &mut Ledger,
    ) {
        let Some((send_socket, handler, upstream)) = upstream_sockets.send_socket(kept[0].socket)
        else {
            return;
        };
        let handler_count = &mut ledger.handlers[handler.index()];
        let upstream_count = &mut ledger.upstreams[upstream.index()];
        let mut settle = |sent: Sent| {
            upstream_count.record(sent);
            handler_count.record(sent);
        };
        for kept in kept.chunks(MESSAGES_MAX) {
            let header = |kept: &Kept| {
                let to = send_socket.upstream()?;
                udp_header(kept.from, to, content.bytes(kept.parcel.span))
            };
            self.headers.clear();
            self.headers.extend(kept.iter().map(header));
            send_socket.adopt(kept[0].parcel.ttl);
            self.runs.clear();
            let mut batch = self.sender.batch();
            for (kept, header) in kept.iter().zip(&self.headers) {
                // The address family differs from the upstream's, or the datagram is too long: no UDP header can carry
                // it.
                let Some(header) = header else {
                    settle(Sent::Refused(errno::UNSENDABLE, 1));
                    continue;
                };
                let sending = Sending {
                    from: Some(kept.from.ip()),
                    ttl: kept.parcel.ttl,
                    ..Sending::default()
                };
                batch.begin(None, &send_socket.without_implied(sending));
                batch.piece(header);
                batch.piece(content.bytes(kept.parcel.span));
                self.runs.push(Run {
                    parcels: 1,
                    datagrams: 1,
                    segment: 0,
                });
            }
            transmit(&mut batch, send_socket, &self.runs, &mut |_, sent| {
                settle(sent);
            });
        }
    }

    fn flush_socket(
        &mut self,
        upstream_sockets: &mut UpstreamSockets,
        socket: UpstreamSocketId,
        content: Content<'_>,
        ledger: &mut Ledger,
    ) {
        let Some((send_socket, handler, upstream)) = upstream_sockets.send_socket(socket) else {
            return;
        };
        let handler_count = &mut ledger.handlers[handler.index()];
        let upstream_count = &mut ledger.upstreams[upstream.index()];
        let mut trouble = None;
        let mut settle = |sent: Sent| {
            upstream_count.record(sent);
            handler_count.record(sent);
            trouble = match sent {
                Sent::Refused(errno, _) if errno::lacks_source(errno) => Some(Trouble::Broken),
                Sent::Reported(errno) => trouble.or(Some(Trouble::Reported(errno))),
                _ => trouble,
            };
        };
        let mut parcels = std::mem::take(&mut self.parcels);
        parcels.clear();
        let whole = content.outbox.parcels(socket);
        parcels.extend(whole.flat_map(|parcel| parcel.parts(send_socket.limits.count_max)));
        // Most requests and replies are one datagram on one socket, which needs no batch.
        let is_sent = match parcels[..] {
            [parcel] if parcel.segment == 0 => {
                send_socket.send_alone(&parcel, |span| content.bytes(span), &mut settle)
            }
            _ => false,
        };
        if !is_sent {
            let mut path = self.path_through(send_socket, content);
            path.send_all(Items::Parcels(&parcels), &mut |_, sent| settle(sent));
        }
        self.parcels = parcels;
        if let Some(trouble) = trouble {
            upstream_sockets.note(socket, trouble);
        }
    }
}

/// One socket, and the buffers that are needed to send through it.
struct SendPath<'w> {
    send_socket: &'w mut SendSocket,
    sender: &'w mut Sender,
    runs: &'w mut Vec<Run>,
    singles: &'w mut Vec<Parcel>,
    content: Content<'w>,
}

impl SendPath<'_> {
    /// Sends all items in order. If the kernel refuses segments, the same datagrams are sent one by one; if that works,
    /// the socket remembers it. `settle` gets the index of the first item that a result concerns.
    fn send_all(&mut self, items: Items<'_>, settle: &mut dyn FnMut(usize, Sent)) {
        let mut done = 0;
        loop {
            let rest = items.from(done);
            let (settled, refusal) =
                self.send_runs(rest, self.send_socket.limits, &mut |index, sent| {
                    settle(done + index, sent);
                });
            done += settled;
            if done == items.len() {
                return;
            }
            let rest = items.from(done);
            let run = rest.longest_run(self.send_socket.limits);
            if refusal.is_some()
                && run.datagrams > SEGMENTS_MAX_OLD
                && self.send_socket.limits.count_max > SEGMENTS_MAX_OLD
            {
                self.send_socket.limits.count_max = SEGMENTS_MAX_OLD; // The kernel may accept fewer.
                continue;
            }
            let sent = self.send_singles(rest, run, &mut |sent| settle(done, sent));
            if let Some(error) = refusal
                && sent > 0
            {
                self.send_socket.learn(&error, u32::from(run.segment) - 1);
            }
            done += run.parcels;
        }
    }

    /// Sends the datagrams of the first run one by one. Returns the number that the kernel accepted.
    fn send_singles(&mut self, items: Items<'_>, run: Run, settle: &mut dyn FnMut(Sent)) -> u32 {
        let mut singles = std::mem::take(self.singles);
        singles.clear();
        for index in 0..run.parcels {
            singles.extend(items.parcel(index).singles());
        }
        let apart = match items.reply() {
            Some(reply) => Items::Singles(&singles, reply),
            None => Items::Parcels(&singles),
        };
        let mut taken = 0;
        self.send_runs(apart, SegmentLimits::NONE, &mut |_, sent| {
            if let Sent::Taken(datagrams) = sent {
                taken += datagrams;
            }
            settle(sent);
        });
        *self.singles = singles;
        taken
    }

    /// Sends items from the front until all are sent or finally refused. Stops early at an item that has to be split:
    /// the kernel refused its segments (the error is returned), or they are known to be too large. Returns the number
    /// of settled items.
    fn send_runs(
        &mut self,
        items: Items<'_>,
        limits: SegmentLimits,
        settle: &mut dyn FnMut(usize, Sent),
    ) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < items.len() {
            let rest = items.from(done);
            self.send_socket.adopt(rest.parcel(0).ttl);
            let mut batch = self.sender.batch();
            gather(
                &mut batch,
                self.runs,
                rest,
                &Gathering {
                    limits,
                    send_socket: self.send_socket,
                    content: self.content,
                },
            );
            if self.runs.is_empty() {
                return (done, None);
            }
            let (settled, refusal) =
                transmit(&mut batch, self.send_socket, self.runs, &mut |at, sent| {
                    settle(done + at, sent);
                });
            done += settled;
            if refusal.is_some() {
                return (done, refusal);
            }
        }
        (done, None)
    }
}

/// The inputs that determine how items become messages.
struct Gathering<'a, 'e> {
    limits: SegmentLimits,
    send_socket: &'e SendSocket,
    content: Content<'a>,
}

/// Fills a batch with messages, one for each run, up to an item that has to be split.
fn gather<'a>(
    batch: &mut SendBatch<'_, 'a>,
    runs: &mut Vec<Run>,
    items: Items<'_>,
    by: &Gathering<'a, '_>,
) {
    runs.clear();
    let mut rest = items;
    while rest.len() > 0 && !batch.is_full() {
        if !by.send_socket.can_send_with(rest.parcel(0).ttl) {
            return; // The next batch sets this TTL on the socket.
        }
        let run = rest.longest_run(by.limits);
        if run.segment != 0 && u32::from(run.segment) > by.limits.bytes_max {
            return;
        }
        let (to, sending) = rest.head();
        let segment = run.segment;
        batch.begin(
            to,
            &by.send_socket
                .without_implied(Sending { segment, ..sending }),
        );
        for index in 0..run.parcels {
            batch.piece(by.content.bytes(rest.parcel(index).span));
        }
        runs.push(run);
        rest = rest.from(run.parcels);
    }
}
