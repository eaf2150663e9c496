//! Empties the outbox into the kernel at the end of a turn: runs of equal size as one segmented send, the rest as one
//! batch of messages, each refusal judged, counted and survived.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::exit::Exit;
use super::lanes::Lanes;
use super::listener::Listener;
use crate::datagram::Span;
use crate::dispatch::handler::Trouble;
use crate::dispatch::ledger::{Ledger, Sent};
use crate::dispatch::outbox::{
    Kept, Lane, Outbox, Parcel, Reply, Run, SEGMENTS_MAX_OLD, SegmentLimits, first_run,
};
use crate::dispatch::udp_header::{HEADER_BYTES, udp_header};
use crate::net::control_message::Sending;
use crate::net::errno::{self, SendError};
use crate::net::send::{MESSAGES_MAX, SendBatch, Sender};

/// Something that can be sent: a parcel to an upstream, or a reply.
trait Item: Copy {
    fn parcel(&self) -> Parcel;
    fn with(self, parcel: Parcel) -> Self;
    /// `None` on a connected socket.
    fn to(&self) -> Option<&SocketAddr>;
    /// What the kernel must be told beside the payload.
    fn sending(&self) -> Sending;
    /// Whether the other may leave in the same message, sizes apart.
    fn joins(&self, other: &Self) -> bool;
}

impl Item for Parcel {
    fn parcel(&self) -> Parcel {
        *self
    }
    fn with(self, parcel: Parcel) -> Parcel {
        parcel
    }
    fn to(&self) -> Option<&SocketAddr> {
        None
    }
    fn sending(&self) -> Sending {
        Sending {
            ttl: self.ttl,
            ..Sending::default()
        }
    }
    fn joins(&self, _: &Parcel) -> bool {
        true
    }
}

impl Item for Reply {
    fn parcel(&self) -> Parcel {
        self.parcel
    }
    fn with(self, parcel: Parcel) -> Reply {
        Reply { parcel, ..self }
    }
    fn to(&self) -> Option<&SocketAddr> {
        Some(&self.to)
    }
    fn sending(&self) -> Sending {
        let from = self.from.ip();
        // A link-local address means nothing without its interface, and an unspecified one needs it for the choice.
        let on_interface = match from {
            IpAddr::V4(_) => false,
            IpAddr::V6(from) => from.is_unspecified() || from.is_unicast_link_local(),
        };
        let interface = if on_interface { self.interface } else { 0 };
        Sending {
            from: Some(from),
            interface,
            ttl: self.parcel.ttl,
            ..Sending::default()
        }
    }
    fn joins(&self, other: &Reply) -> bool {
        (self.to, self.from, self.handler) == (other.to, other.from, other.handler)
    }
}

impl Item for Kept {
    fn parcel(&self) -> Parcel {
        self.parcel
    }
    fn with(self, parcel: Parcel) -> Kept {
        Kept { parcel, ..self }
    }
    fn to(&self) -> Option<&SocketAddr> {
        None
    }
    fn sending(&self) -> Sending {
        Sending {
            from: Some(self.from.ip()),
            ttl: self.parcel.ttl,
            ..Sending::default()
        }
    }
    fn joins(&self, _: &Kept) -> bool {
        false
    }
}

/// Memory for flushing, used again every turn.
#[derive(Default)]
pub struct Flusher {
    sender: Sender,
    runs: Vec<Run>,
    parcels: Vec<Parcel>,
    singles: Vec<Parcel>,
    single_replies: Vec<Reply>,
    headers: Vec<Option<[u8; HEADER_BYTES]>>,
}

impl Flusher {
    /// Sends everything and empties the outbox. Replies leave through the listener that was asked.
    pub fn flush(
        &mut self,
        listeners: &mut [Listener],
        lanes: &mut Lanes,
        outbox: &mut Outbox,
        arena: &[u8],
        ledger: &mut Ledger,
    ) {
        for &lane in outbox.touched() {
            self.flush_lane(lanes, lane, outbox, arena, ledger);
        }
        for &ear in outbox.replying() {
            let Flusher {
                sender,
                runs,
                single_replies,
                ..
            } = self;
            let mut way = Way {
                exit: &mut listeners[ear.index()].exit,
                sender,
                runs,
                outbox,
                arena,
            };
            way.send_all(outbox.replies(ear), single_replies, |reply, sent| {
                ledger.handlers[reply.handler.index()].record(sent);
            });
        }
        for kept in outbox.kept().chunk_by(|one, next| one.lane == next.lane) {
            self.flush_kept(lanes, kept, outbox, arena, ledger);
        }
        outbox.clear();
        lanes.settle(ledger);
    }

    /// Sends datagrams of one lane under their senders' addresses.
    fn flush_kept(
        &mut self,
        lanes: &mut Lanes,
        kept: &[Kept],
        outbox: &Outbox,
        arena: &[u8],
        ledger: &mut Ledger,
    ) {
        let Some((exit, handler, upstream)) = lanes.exit(kept[0].lane) else {
            return;
        };
        let (account, theirs) = (
            &mut ledger.handlers[handler.index()],
            &mut ledger.upstreams[upstream.index()],
        );
        let mut settle = |sent: Sent| {
            theirs.record(sent);
            account.record(sent);
        };
        for kept in kept.chunks(MESSAGES_MAX) {
            let Flusher {
                sender,
                runs,
                headers,
                ..
            } = self;
            let header = |kept: &Kept| {
                let to = exit.upstream()?;
                udp_header(kept.from, to, outbox.bytes(arena, kept.parcel.span))
            };
            headers.clear();
            headers.extend(kept.iter().map(header));
            exit.adopt(kept[0].parcel.ttl);
            runs.clear();
            let mut batch = sender.batch();
            for (kept, header) in kept.iter().zip(&*headers) {
                // The family is another, or it is too long for this one: nothing could carry it.
                let Some(header) = header else {
                    settle(Sent::Refused(errno::UNSENDABLE, 1));
                    continue;
                };
                batch.begin(None, &exit.spare(kept.sending()));
                batch.piece(header);
                batch.piece(outbox.bytes(arena, kept.parcel.span));
                runs.push(Run {
                    parcels: 1,
                    datagrams: 1,
                    segment: 0,
                });
            }
            transmit(&mut batch, exit, runs, kept, &mut |_, sent| settle(sent));
        }
    }

    fn flush_lane(
        &mut self,
        lanes: &mut Lanes,
        lane: Lane,
        outbox: &Outbox,
        arena: &[u8],
        ledger: &mut Ledger,
    ) {
        let Flusher {
            sender,
            runs,
            parcels,
            singles,
            ..
        } = self;
        let Some((exit, handler, upstream)) = lanes.exit(lane) else {
            return;
        };
        let (account, theirs) = (
            &mut ledger.handlers[handler.index()],
            &mut ledger.upstreams[upstream.index()],
        );
        let mut trouble = None;
        let mut settle = |sent: Sent| {
            theirs.record(sent);
            account.record(sent);
            trouble = match sent {
                Sent::Refused(errno, _) if errno::lacks_source(errno) => Some(Trouble::Broken),
                Sent::Reported(errno) => trouble.or(Some(Trouble::Reported(errno))),
                _ => trouble,
            };
        };
        parcels.clear();
        parcels.extend(
            outbox
                .lane(lane)
                .flat_map(|parcel| parcel.parts(exit.limits.count_max)),
        );
        if let [parcel] = parcels[..]
            && parcel.segment == 0
            && exit.send_alone(&parcel, |span| outbox.bytes(arena, span), &mut settle)
        {
            // What request and reply mostly is: one datagram, one lane.
        } else {
            let mut way = Way {
                exit,
                sender,
                runs,
                outbox,
                arena,
            };
            way.send_all(parcels, singles, |_, sent| settle(sent));
        }
        if let Some(trouble) = trouble {
            lanes.note(lane, trouble);
        }
    }
}

/// One exit, with what it takes to send through it.
struct Way<'w> {
    exit: &'w mut Exit,
    sender: &'w mut Sender,
    runs: &'w mut Vec<Run>,
    outbox: &'w Outbox,
    arena: &'w [u8],
}

impl Way<'_> {
    /// Sends all items in order. Where segments are refused, the same datagrams go one by one, and if that works the
    /// exit remembers.
    fn send_all<I: Item>(
        &mut self,
        items: &[I],
        singles: &mut Vec<I>,
        mut account: impl FnMut(&I, Sent),
    ) {
        let mut rest = items;
        loop {
            let (done, refusal) = self.send_runs(rest, self.exit.limits, &mut account);
            rest = &rest[done..];
            if rest.is_empty() {
                return;
            }
            let run = longest_run(rest, self.exit.limits);
            if refusal.is_some()
                && run.datagrams > SEGMENTS_MAX_OLD
                && self.exit.limits.count_max > SEGMENTS_MAX_OLD
            {
                self.exit.limits.count_max = SEGMENTS_MAX_OLD; // Perhaps that is all: see whether fewer will go.
                continue;
            }
            singles.clear();
            for item in &rest[..run.parcels] {
                singles.extend(item.parcel().singles().map(|parcel| item.with(parcel)));
            }
            let mut sent = 0;
            self.send_runs(
                singles,
                SegmentLimits::NONE,
                &mut |item: &I, result: Sent| {
                    sent += if let Sent::Taken(datagrams) = result {
                        datagrams
                    } else {
                        0
                    };
                    account(item, result);
                },
            );
            if let Some(error) = refusal
                && sent > 0
            {
                self.exit.learn(&error, u32::from(run.segment) - 1);
            }
            rest = &rest[run.parcels..];
        }
    }

    /// Sends items from the front until all are sent or refused for good. Stops early at an item that has to be taken
    /// apart: the kernel refused its segments (the error is returned), or they are known to be too large.
    fn send_runs<I: Item>(
        &mut self,
        items: &[I],
        limits: SegmentLimits,
        account: &mut impl FnMut(&I, Sent),
    ) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < items.len() {
            let (outbox, arena) = (self.outbox, self.arena);
            let mut batch = self.sender.batch();
            self.exit.adopt(items[done].parcel().ttl);
            gather(
                &mut batch,
                self.runs,
                &items[done..],
                limits,
                self.exit,
                |span| outbox.bytes(arena, span),
            );
            if self.runs.is_empty() {
                return (done, None);
            }
            let (sent, refusal) =
                transmit(&mut batch, self.exit, self.runs, &items[done..], account);
            done += sent;
            if refusal.is_some() {
                return (done, refusal);
            }
        }
        (done, None)
    }
}

/// Fills a batch with messages, one for each run, up to an item that has to be taken apart.
fn gather<'a, I: Item>(
    batch: &mut SendBatch<'_, 'a>,
    runs: &mut Vec<Run>,
    items: &[I],
    limits: SegmentLimits,
    exit: &Exit,
    payload: impl Fn(Span) -> &'a [u8],
) {
    runs.clear();
    let mut rest = items;
    while !rest.is_empty() && !batch.is_full() {
        if !exit.can_send_with(rest[0].parcel().ttl) {
            return; // The next batch adopts it.
        }
        let run = longest_run(rest, limits);
        if run.segment != 0 && u32::from(run.segment) > limits.bytes_max {
            return;
        }
        let (together, after) = rest.split_at(run.parcels);
        batch.begin(
            rest[0].to(),
            &exit.spare(Sending {
                segment: run.segment,
                ..rest[0].sending()
            }),
        );
        for item in together {
            batch.piece(payload(item.parcel().span));
        }
        runs.push(run);
        rest = after;
    }
}

/// Sends a batch to its end. Every refusal is judged: tried again, counted, or, where segments were refused, returned.
/// Also returns how many items are settled.
fn transmit<I: Item>(
    batch: &mut SendBatch<'_, '_>,
    exit: &mut Exit,
    runs: &[Run],
    items: &[I],
    account: &mut impl FnMut(&I, Sent),
) -> (usize, Option<io::Error>) {
    let (mut first, mut done) = (0, 0);
    let mut retried = false;
    let mut renewed = exit.renew_if_doubted();
    if let Some(errno) = exit.unreachable() {
        runs.iter()
            .for_each(|run| account(&items[0], Sent::Refused(errno, run.datagrams)));
        return (runs.iter().map(|run| run.parcels).sum(), None);
    }
    while let Some(run) = runs.get(first) {
        let error = match batch.send(exit.socket(), first) {
            Ok(sent) => {
                for run in &runs[first..first + sent] {
                    account(&items[done], Sent::Taken(run.datagrams));
                    done += run.parcels;
                }
                first += sent;
                retried = false;
                continue;
            }
            Err(error) => error,
        };
        let meaning = errno::of_send(&error);
        let again = match meaning {
            SendError::Again => true,
            SendError::Pending => !std::mem::replace(&mut retried, true),
            SendError::Full | SendError::Refused => false,
        };
        if again {
            if meaning == SendError::Pending && errno::is_report(&error) {
                account(
                    &items[done],
                    Sent::Reported(error.raw_os_error().unwrap_or(0)),
                );
            }
            continue;
        }
        if run.segment != 0 && errno::refuses_segments(&error) {
            return (done, Some(error));
        }
        // Tried once: while the network is down, the rest is refused without ado.
        if errno::may_lack_source(&error) && !std::mem::replace(&mut renewed, true) && exit.renew()
        {
            continue;
        }
        account(
            &items[done],
            Sent::Refused(error.raw_os_error().unwrap_or(0), run.datagrams),
        );
        done += run.parcels;
        first += 1;
        retried = false;
    }
    (done, None)
}

/// The longest run of items that can leave as one message.
fn longest_run<I: Item>(items: &[I], limits: SegmentLimits) -> Run {
    first_run(
        items
            .iter()
            .take_while(|item| item.joins(&items[0]))
            .map(Item::parcel),
        limits,
    )
}
