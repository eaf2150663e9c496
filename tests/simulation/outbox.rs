//! Compares an outbox with what the model says must be sent, and its runs with the kernel's rules for segmented sends.

use std::collections::{HashMap, HashSet};

use udispatch::datagram::{Region, Span};
use udispatch::dispatch::id::LocalListener;
use udispatch::dispatch::outbox::{
    COPY_MAX_BYTES, Outbox, Parcel, SEGMENTS_MAX, SEGMENTS_MAX_OLD, SegmentLimits,
    UpstreamSocketId, first_run,
};
use udispatch::dispatch::random::Random;

use crate::model::{Body, Passed, Turn, Way};
use crate::world::pick;

/// Limits of one segmented send (udp(7), include/linux/udp.h).
const SEGMENTS: usize = 128;
const RUN_BYTES: usize = 65_507;

/// The socket that a handler's datagrams with one text use, over the whole simulation and all workers.
pub type Memory = HashMap<(usize, String), usize>;

/// The datagrams of a parcel, cut by the kernel's rule.
fn datagrams(parcel: &Parcel) -> Vec<(u32, u32)> {
    let offset = parcel.span.offset;
    let len = parcel.span.len;
    match u32::from(parcel.segment) {
        0 => vec![(offset, len)],
        segment => {
            assert!(len > 0, "a segmented parcel has bytes");
            (0..len)
                .step_by(segment as usize)
                .map(|start| (offset + start, segment.min(len - start)))
                .collect()
        }
    }
}

/// Checks an outbox. `sockets` has the handler of each socket.
pub fn check(
    outbox: &Outbox,
    listener: LocalListener,
    arena: &[u8],
    turn: &Turn,
    sockets: &[usize],
    memory: &mut Memory,
    random: &mut Random,
) {
    check_sockets(outbox, arena, turn, sockets, memory);
    check_answers(outbox, listener, arena, turn);
    for socket in 0..sockets.len() {
        let parcels: Vec<Parcel> = outbox.parcels(UpstreamSocketId(socket as u32)).collect();
        check_runs(outbox, arena, &parcels, random);
    }
    let mut rest = outbox.replies(listener);
    while let Some(first) = rest.first() {
        let is_same = |reply: &&udispatch::dispatch::outbox::Reply| {
            (reply.to, reply.from, reply.handler) == (first.to, first.from, first.handler)
        };
        let same = rest.iter().take_while(is_same).count();
        let parcels: Vec<Parcel> = rest[..same].iter().map(|reply| reply.parcel).collect();
        check_runs(outbox, arena, &parcels, random);
        rest = &rest[same..];
    }
}

/// Each socket has exactly the datagrams that must be sent on it, in order.
fn check_sockets(
    outbox: &Outbox,
    arena: &[u8],
    turn: &Turn,
    sockets: &[usize],
    memory: &mut Memory,
) {
    // A datagram of a few bytes may by chance equal the next one on another socket. Where any socket may be right, such
    // datagrams are only counted.
    let is_free = |passed: &&Passed| matches!(passed.way, Way::Any | Way::SameFor(_));
    let free: HashSet<usize> = turn
        .passed
        .iter()
        .filter(is_free)
        .map(|passed| passed.handler)
        .collect();
    let mut loose: HashMap<(usize, &[u8], Option<u8>), i64> = HashMap::new();
    let is_loose = |handler: usize, bytes: &[u8]| bytes.len() < 8 && free.contains(&handler);
    let mut waiting: Vec<_> = (0..sockets.len())
        .map(|socket| {
            let parcels: Vec<Parcel> = outbox.parcels(UpstreamSocketId(socket as u32)).collect();
            assert_eq!(
                parcels.is_empty(),
                !outbox.touched().contains(&UpstreamSocketId(socket as u32)),
                "socket {socket} is touched"
            );
            let all = parcels.iter().flat_map(|parcel| {
                let is_long = parcel.segment == 0 && parcel.span.len > COPY_MAX_BYTES;
                assert!(
                    !is_long || parcel.span.region == Region::Arena,
                    "what is long is not copied"
                );
                let bytes = |(offset, len)| {
                    outbox.bytes(
                        arena,
                        Span {
                            offset,
                            len,
                            ..parcel.span
                        },
                    )
                };
                datagrams(parcel)
                    .into_iter()
                    .map(move |cut| (bytes(cut), parcel.ttl))
            });
            let (short, rest): (Vec<_>, Vec<_>) =
                all.partition(|(bytes, _)| is_loose(sockets[socket], bytes));
            short.into_iter().for_each(|(bytes, ttl)| {
                *loose.entry((sockets[socket], bytes, ttl)).or_default() += 1;
            });
            rest.into_iter().peekable()
        })
        .collect();
    for passed in &turn.passed {
        let wanted = (
            &arena[passed.offset as usize..][..passed.len as usize],
            passed.ttl,
        );
        if is_loose(passed.handler, wanted.0) {
            *loose
                .entry((passed.handler, wanted.0, wanted.1))
                .or_default() -= 1;
            continue;
        }
        let own: Vec<usize> = (0..sockets.len())
            .filter(|&socket| sockets[socket] == passed.handler)
            .collect();
        let there: Vec<usize> = (0..own.len())
            .filter(|&place| waiting[own[place]].peek() == Some(&wanted))
            .collect();
        let expected = match &passed.way {
            Way::All => (0..own.len()).collect(),
            Way::This(place) => vec![*place],
            Way::Any => there.iter().copied().take(1).collect(),
            Way::SameFor(words) => {
                let key = (passed.handler, words.clone());
                let first = there.first().copied().unwrap_or(usize::MAX);
                vec![*memory.entry(key).or_insert(first)]
            }
        };
        assert!(!expected.is_empty(), "{passed:?} leaves nowhere");
        match wanted.0.len() {
            0..8 => assert!(
                expected.iter().all(|place| there.contains(place)),
                "the sockets that {passed:?} leaves on"
            ),
            _ => assert_eq!(there, expected, "the sockets that {passed:?} leaves on"),
        }
        for place in expected {
            waiting[own[place]].next();
        }
    }
    for (socket, waiting) in waiting.iter_mut().enumerate() {
        assert_eq!(
            waiting.next(),
            None,
            "socket {socket} holds what nobody passed on"
        );
    }
    assert!(
        loose.values().all(|count| *count == 0),
        "short ones that nobody passed on, or that left nowhere"
    );
}

/// The replies are exactly those that the reply policy allows, each from the address of its request and with its TTL.
fn check_answers(outbox: &Outbox, listener: LocalListener, arena: &[u8], turn: &Turn) {
    assert!(
        outbox.replying().iter().all(|other| *other == listener),
        "answers leave where they were asked"
    );
    assert_eq!(
        outbox.replies(listener).len(),
        turn.answers.len(),
        "the number of answers"
    );
    for (reply, answer) in outbox.replies(listener).iter().zip(&turn.answers) {
        assert_eq!(reply.handler.index(), answer.handler, "{answer:?}");
        assert_eq!(
            (reply.to, reply.from),
            (answer.to, answer.from),
            "{answer:?}"
        );
        assert_eq!(reply.parcel.ttl, Some(answer.ttl), "{answer:?}");
        assert_eq!(reply.parcel.segment, 0, "{answer:?}");
        if let Some(interface) = answer.interface {
            assert_eq!(reply.interface, interface, "{answer:?}");
        }
        match &answer.body {
            Body::Same { offset, len } => {
                let span = Span {
                    region: Region::Arena,
                    offset: *offset,
                    len: *len,
                };
                assert_eq!(reply.parcel.span, span, "{answer:?}");
            }
            Body::Made(bytes) => assert!(
                outbox.bytes(arena, reply.parcel.span) == bytes,
                "the bytes of an answer"
            ),
        }
    }
}

/// Runs contain everything, and the kernel would cut each run into the original datagrams.
fn check_runs(outbox: &Outbox, arena: &[u8], parcels: &[Parcel], random: &mut Random) {
    let limits = SegmentLimits {
        bytes_max: *pick(random, &[0, 63, 64, 1_200, 9_000, u32::MAX, u32::MAX]),
        count_max: *pick(random, &[SEGMENTS_MAX_OLD, SEGMENTS_MAX]),
    };
    let mut rest = parcels;
    while !rest.is_empty() {
        let run = first_run(rest.iter().copied(), limits);
        assert!(run.parcels >= 1 && run.parcels <= rest.len(), "{run:?}");
        let (together, after) = rest.split_at(run.parcels);
        let wanted: Vec<&[u8]> = together
            .iter()
            .flat_map(|parcel| {
                let span = parcel.span;
                datagrams(parcel)
                    .into_iter()
                    .map(move |(offset, len)| Span {
                        offset,
                        len,
                        ..span
                    })
            })
            .map(|span| outbox.bytes(arena, span))
            .collect();
        assert_eq!(run.datagrams as usize, wanted.len(), "{run:?}");
        assert!(
            together.iter().all(|parcel| parcel.ttl == together[0].ttl),
            "one TTL a send"
        );
        match usize::from(run.segment) {
            0 => assert_eq!(wanted.len(), 1, "{run:?}"),
            segment => check_segments(&wanted, segment),
        }
        if run.parcels > 1 {
            assert!(
                u32::from(run.segment) <= limits.bytes_max,
                "{run:?} with {limits:?}"
            );
            assert!(run.datagrams <= limits.count_max, "{run:?} with {limits:?}");
        }
        for parcel in together {
            let singles: Vec<(u32, u32)> = parcel
                .singles()
                .map(|single| (single.span.offset, single.span.len))
                .collect();
            assert_eq!(singles, datagrams(parcel), "taken apart: {parcel:?}");
            assert_eq!(parcel.datagrams() as usize, singles.len(), "{parcel:?}");
        }
        if let Some(next) = after.first() {
            check_longest(together, &wanted, next, limits);
        }
        rest = after;
    }
}

/// Checks the rules for one segmented send, and that the kernel's cut restores the datagrams.
fn check_segments(wanted: &[&[u8]], segment: usize) {
    let bytes = wanted.concat();
    assert!(
        bytes.len() <= RUN_BYTES && wanted.len() <= SEGMENTS,
        "{} bytes, {} datagrams",
        bytes.len(),
        wanted.len()
    );
    let cut: Vec<&[u8]> = bytes.chunks(segment).collect();
    assert!(
        cut == wanted,
        "the kernel would cut differently: {:?}",
        wanted.iter().map(|one| one.len()).collect::<Vec<_>>()
    );
}

/// A run ends only where the next parcel could not have been part of it.
fn check_longest(together: &[Parcel], wanted: &[&[u8]], next: &Parcel, limits: SegmentLimits) {
    let sizes: Vec<usize> = datagrams(next).iter().map(|one| one.1 as usize).collect();
    let all: Vec<usize> = wanted.iter().map(|one| one.len()).chain(sizes).collect();
    let segment = all[0];
    let (last, others) = all.split_last().expect("two datagrams at least");
    let fits = segment > 0
        && segment as u64 <= u64::from(limits.bytes_max)
        && next.ttl == together[0].ttl
        && all.len() <= limits.count_max as usize
        && all.iter().sum::<usize>() <= RUN_BYTES
        && others.iter().all(|one| *one == segment)
        && (1..=segment).contains(last);
    assert!(!fits, "a run ended too early: {all:?}");
}
