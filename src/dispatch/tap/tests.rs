//! Tests of taps: every datagram that the filter selects is either shown or counted as missed.

use std::net::SocketAddr;

use crossbeam_channel::{Receiver, unbounded};

use super::filter::AddressFilter;
use super::*;
use crate::datagram::Span;
use crate::dispatch::id::{ListenerId, RouteId};
use crate::dispatch::random::Random;
use crate::dispatch::verdict::Verdict;

/// Returns the bytes of an arena that is full of numbers.
fn arena() -> Vec<u8> {
    (0..1 << 18).map(|index| (index / 7) as u8).collect()
}

fn envelope(src: &str, dst: &str) -> Envelope {
    let dst = dst.parse().unwrap();
    Envelope {
        src: src.parse().unwrap(),
        dst,
        local: dst,
        interface: 0,
        ttl: None,
        time_ns: None,
    }
}

fn train(envelope: Envelope, offset: u32, len: u32, segment: u16) -> Train {
    Train {
        envelope,
        span: Span {
            region: Region::Arena,
            offset,
            len,
        },
        segment,
    }
}

fn received(route: Result<Option<RouteId>, DropReason>) -> TapSource {
    TapSource {
        direction: Direction::Request,
        listener: Some(ListenerId::new(3)),
        route,
        upstream: None,
    }
}

/// Returns taps with one tap, and its reader.
fn tapped(filter: Filter, snap: usize) -> (Taps, Receiver<TapPage>, Arc<TapCounts>) {
    let (reader, pages) = unbounded();
    let counts = Arc::new(TapCounts::default());
    let mut taps = Taps::new(Arc::default());
    taps.add(Tap::new(
        TapId(1),
        Arc::new(filter),
        snap,
        reader,
        Arc::clone(&counts),
    ));
    (taps, pages, counts)
}

/// Each form of a destination is parsed, and anything else is refused.
#[test]
fn targets_are_read() {
    let target = |text: &str| {
        text.parse::<AddressFilter>()
            .map(|target| (target.net.map(|net| net.to_string()), target.port))
    };
    let some = |net: &str, port| Ok((Some(net.to_owned()), port));
    assert_eq!(target("127.0.0.1:1234"), some("127.0.0.1/32", Some(1234)));
    assert_eq!(target("127.0.0.1"), some("127.0.0.1/32", None));
    assert_eq!(target("10.0.0.0/8:53"), some("10.0.0.0/8", Some(53)));
    assert_eq!(target("[::1]:53"), some("::1/128", Some(53)));
    assert_eq!(
        target("[2001:db8::/32]:53"),
        some("2001:db8::/32", Some(53))
    );
    assert_eq!(target("2001:db8::1"), some("2001:db8::1/128", None));
    assert_eq!(target(":53"), Ok((None, Some(53))));
    for wrong in [
        "",
        "53",
        ":0",
        ":65536",
        "1.2.3:4",
        "[::1:53",
        "[127.0.0.1]:53",
        "::g",
        "10.0.0.0/33",
        "host:53",
    ] {
        assert!(target(wrong).is_err(), "{wrong}");
    }
}

/// Each datagram of a run is shown with its own bytes, its own addresses, and the verdict of each handler.
#[test]
fn records_hold_the_verdicts_on_each() {
    let arena = arena();
    let (mut taps, pages, counts) = tapped(Filter::default(), 4);
    let one = envelope("192.0.2.1:9", "192.0.2.9:53");
    let two = envelope("192.0.2.2:9", "192.0.2.9:53");
    let trains = [
        train(one, 0, 10, 4),
        train(
            Envelope {
                time_ns: Some(5),
                ..two
            },
            100,
            6,
            0,
        ),
    ];
    let batch = Batch::new(&trains, &arena);
    taps.begin_turn(77);
    taps.note(
        HandlerId(0),
        &Drops(vec![(1, DropReason::SinkFull), (3, DropReason::SinkFull)]),
    );
    taps.note(
        HandlerId(4),
        &Drops(vec![(0, DropReason::Discarded), (3, DropReason::Discarded)]),
    );
    taps.take(received(Ok(Some(RouteId(2)))), &batch);
    taps.take(
        received(Err(DropReason::NoRoute)),
        &Batch::new(&trains[1..], &arena),
    );
    assert!(taps.end_turn());
    let page = pages.try_recv().unwrap();
    let views: Vec<View<'_>> = page.views().collect();
    let lens: Vec<_> = views
        .iter()
        .map(|view| (view.record.len, view.payload.len(), view.record.time_ns))
        .collect();
    assert_eq!(
        lens,
        [(4, 4, 77), (4, 4, 77), (2, 2, 77), (6, 4, 5), (6, 4, 5)]
    );
    for (view, offset) in views.iter().zip([0, 4, 8, 100, 100]) {
        assert_eq!(view.payload, &arena[offset..offset + view.payload.len()]);
        assert_eq!(
            (view.record.listener, view.record.upstream),
            (Some(ListenerId::new(3)), None)
        );
    }
    assert_eq!(
        (views[2].record.ends, views[4].record.ends),
        (Some(one), Some(trains[1].envelope))
    );
    let handled = Verdict::Handled;
    let full = Verdict::Dropped(DropReason::SinkFull);
    let discarded = Verdict::Dropped(DropReason::Discarded);
    let by_handler: Vec<Vec<Verdict>> = views
        .iter()
        .map(|view| view.verdicts.iter().map(|(_, verdict)| *verdict).collect())
        .collect();
    let expected: [&[Verdict]; 5] = [
        &[handled, discarded],
        &[full, handled],
        &[handled, handled],
        &[full, discarded],
        &[],
    ];
    assert_eq!(by_handler, expected);
    let verdicts: Vec<_> = views.iter().map(View::verdict).collect();
    assert_eq!(
        verdicts,
        [
            handled,
            handled,
            handled,
            full,
            Verdict::Dropped(DropReason::NoRoute)
        ]
    );
    assert_eq!(
        (views[3].record.route, views[4].record.route),
        (Some(RouteId(2)), None)
    );
    assert_eq!(counts.get(), (5, 0));
}

/// Seeded: for any traffic and any speed of the reader, shown and missed datagrams are all that the filter selects.
/// No other datagram is shown. The number of pages stays fixed, and no turn copies more than its allowance.
#[test]
fn shown_and_missed_are_all_that_matches() {
    let arena = arena();
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let filters = [
            Filter::default(),
            Filter {
                to: ":53".parse().unwrap(),
                ..Filter::default()
            },
            Filter {
                to: "192.0.2.2".parse().unwrap(),
                ..Filter::default()
            },
            Filter {
                from: Some("10.0.0.0/31".parse().unwrap()),
                ..Filter::default()
            },
            Filter {
                handler: Some(HandlerId(1)),
                ..Filter::default()
            },
        ];
        let filter = filters[random.below(filters.len())].clone();
        let snap = [0, 16, 65_535][random.below(3)];
        let (mut taps, pages, counts) = tapped(filter.clone(), snap);
        let mut matching = 0;
        let mut shown = 0;
        let mut under_way = Vec::new();
        let mut read = |under_way: &mut Vec<TapPage>, count: usize| {
            for page in under_way.drain(..count) {
                for view in page.views() {
                    let ends = view.record.ends.unwrap();
                    assert!(filter.matches(ends.dst, ends.src), "seed {seed}: {ends:?}");
                    assert_eq!(
                        view.payload.len(),
                        snap.min(view.record.len as usize),
                        "seed {seed}"
                    );
                    shown += 1;
                }
                page.done();
            }
        };
        for _ in 0..200 {
            taps.begin_turn(1);
            let (matched_before, missed_before) = counts.get();
            for _ in 0..random.below(5) {
                let trains: Vec<Train> = (0..random.below(30))
                    .map(|_| {
                        let src = SocketAddr::from(([10, 0, 0, random.below(4) as u8], 9_000));
                        let dst = SocketAddr::from((
                            [192, 0, 2, random.below(4) as u8],
                            [53, 54][random.below(2)],
                        ));
                        let ends = Envelope {
                            src,
                            dst,
                            local: dst,
                            interface: 0,
                            ttl: None,
                            time_ns: None,
                        };
                        let segment = [0, 100, 1_400][random.below(3)];
                        train(
                            ends,
                            random.below(1_000) as u32,
                            random.below(60_000) as u32,
                            segment,
                        )
                    })
                    .collect();
                let handlers: Vec<HandlerId> = (0..=random.below(2))
                    .map(|id| HandlerId(id as u32))
                    .collect();
                handlers
                    .iter()
                    .for_each(|handler| taps.note(*handler, &Drops(Vec::new())));
                taps.take(received(Ok(None)), &Batch::new(&trains, &arena));
                let has_handler = filter
                    .handler
                    .is_none_or(|handler| handlers.contains(&handler));
                let selected = trains
                    .iter()
                    .filter(|train| filter.matches(train.envelope.dst, train.envelope.src));
                matching += selected
                    .map(|train| u64::from(train.datagrams()))
                    .sum::<u64>()
                    * u64::from(has_handler);
            }
            let _ = taps.end_turn();
            under_way.extend(pages.try_iter());
            let (matched, missed) = counts.get();
            assert!(
                matched - matched_before - (missed - missed_before) <= RECORDS_PER_TURN as u64,
                "seed {seed}"
            );
            assert!(under_way.len() <= 4, "seed {seed}");
            let count = random.below(under_way.len() + 1);
            read(&mut under_way, count);
        }
        taps.remove(TapId(1));
        under_way.extend(pages.try_iter());
        let count = under_way.len();
        read(&mut under_way, count);
        let (matched, missed) = counts.get();
        assert_eq!(
            (matched, matched - missed),
            (matching, shown),
            "seed {seed}"
        );
        assert!(shown > 0 || matching == 0, "seed {seed}");
    }
}

/// A reader that does not read holds all pages except the current one. Datagrams that do not fit there are missed.
/// Once it reads again, the rest arrives. A reader that is gone costs nothing.
#[test]
fn a_reader_that_stands_still() {
    let arena = arena();
    let (mut taps, pages, counts) = tapped(Filter::default(), 65_535);
    let trains = [train(envelope("192.0.2.1:9", "192.0.2.9:53"), 0, 60_000, 0)];
    for turn in 0..100 {
        taps.begin_turn(1);
        taps.take(received(Ok(None)), &Batch::new(&trains, &arena));
        let keeps = !taps.end_turn();
        assert_eq!(keeps, (3..7).contains(&turn), "turn {turn}");
    }
    // Three pages of one datagram each, and a fourth with as many as it holds, which was sent once it was full.
    assert_eq!((pages.len(), counts.get()), (4, (100, 93)));
    pages.try_iter().for_each(TapPage::done);
    taps.begin_turn(1);
    taps.take(received(Ok(None)), &Batch::new(&trains, &arena));
    assert!(taps.end_turn());
    assert_eq!((pages.len(), counts.get()), (1, (101, 93)));
    drop(pages);
    for _ in 0..20 {
        taps.begin_turn(1);
        taps.take(received(Ok(None)), &Batch::new(&trains, &arena));
        assert!(taps.end_turn());
    }
}

/// All pages are freed when their tap and its reader are gone, whichever goes first: those that were read and went
/// back, that wait for the reader, and that are being filled.
#[test]
fn pages_are_freed_with_their_tap() {
    let arena = arena();
    let trains = [train(envelope("192.0.2.1:9", "192.0.2.9:53"), 0, 60_000, 0)];
    for reader_goes_first in [false, true] {
        let names = Arc::new(Names::default());
        let (reader, pages) = unbounded();
        let mut taps = Taps::new(Arc::clone(&names));
        taps.add(Tap::new(
            TapId(1),
            Arc::default(),
            65_535,
            reader,
            Arc::default(),
        ));
        for _ in 0..8 {
            taps.begin_turn(1);
            taps.take(received(Ok(None)), &Batch::new(&trains, &arena));
            taps.end_turn();
        }
        pages.try_iter().take(2).for_each(TapPage::done);
        assert!(Arc::strong_count(&names) > 2, "pages have the names");
        if reader_goes_first {
            drop(pages);
            drop(taps);
        } else {
            drop(taps);
            drop(pages);
        }
        assert_eq!(Arc::strong_count(&names), 1, "{reader_goes_first}");
    }
}
