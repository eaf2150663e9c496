//! Tests of `dispatch/outbox.rs`.

use super::*;

fn parcel(len: u32, segment: u16) -> Parcel {
    Parcel {
        span: Span {
            region: Region::Arena,
            offset: 0,
            len,
        },
        segment,
        ttl: None,
    }
}

fn run_of(parcels: &[Parcel]) -> (usize, u32, u16) {
    let run = first_run(parcels.iter().copied(), SegmentLimits::UNKNOWN);
    (run.parcels, run.datagrams, run.segment)
}

/// A run takes equal sizes, ends after a shorter one, and never takes a longer or an empty one.
#[test]
fn runs_end_where_the_kernel_would_cut_wrongly() {
    assert_eq!(
        run_of(&[parcel(64, 0), parcel(64, 0), parcel(10, 0), parcel(64, 0)]),
        (3, 3, 64)
    );
    assert_eq!(run_of(&[parcel(64, 0), parcel(65, 0)]), (1, 1, 0));
    assert_eq!(run_of(&[parcel(0, 0), parcel(0, 0)]), (1, 1, 0));
    assert_eq!(run_of(&[parcel(64, 0), parcel(0, 0)]), (1, 1, 0));
    assert_eq!(
        run_of(&[parcel(640, 64), parcel(64, 0), parcel(70, 64)]),
        (3, 13, 64)
    );
    assert_eq!(run_of(&[parcel(650, 64), parcel(64, 0)]), (1, 11, 64));
    assert_eq!(run_of(&vec![parcel(64, 0); 200]), (128, 128, 64));
    let old = SegmentLimits {
        count_max: SEGMENTS_MAX_OLD,
        ..SegmentLimits::UNKNOWN
    };
    assert_eq!(
        first_run(vec![parcel(64, 0); 200].into_iter(), old).datagrams,
        64
    );
    assert_eq!(run_of(&vec![parcel(1200, 0); 100]), (54, 54, 1200));
    let spent = Parcel {
        ttl: Some(3),
        ..parcel(64, 0)
    };
    assert_eq!(run_of(&[parcel(64, 0), spent]), (1, 1, 0));
}

/// A train longer than a segmented send is cut at segment borders and loses no byte.
#[test]
fn long_trains_are_split() {
    let peer = "127.0.0.1:9".parse().unwrap();
    let envelope = Envelope {
        src: peer,
        dst: peer,
        local: peer,
        interface: 0,
        ttl: None,
        time_ns: None,
    };
    let span = Span {
        region: Region::Arena,
        offset: 100,
        len: 256 * 64 - 5,
    };
    let mut outbox = Outbox::default();
    outbox.forward(
        UpstreamSocketId(0),
        &Train {
            envelope,
            span,
            segment: 64,
        },
        None,
        &[],
    );
    let parcels: Vec<_> = outbox.parcels(UpstreamSocketId(0)).collect();
    assert_eq!(
        parcels.iter().map(Parcel::datagrams).collect::<Vec<_>>(),
        [128, 128]
    );
    assert_eq!(
        parcels.iter().map(|parcel| parcel.span.len).sum::<u32>(),
        span.len
    );
    assert_eq!(parcels[0].singles().count(), 128);
    assert_eq!(
        parcels[1]
            .parts(100)
            .map(|part| part.datagrams())
            .collect::<Vec<_>>(),
        [100, 28]
    );
    assert_eq!(
        parcels[1].parts(100).map(|part| part.span.len).sum::<u32>(),
        parcels[1].span.len
    );
}

/// Short datagrams of one socket become one parcel, copied once for all sockets, as long as the kernel cuts it
/// correctly.
#[test]
fn short_ones_are_joined() {
    let peer = "127.0.0.1:9".parse().unwrap();
    let envelope = Envelope {
        src: peer,
        dst: peer,
        local: peer,
        interface: 0,
        ttl: None,
        time_ns: None,
    };
    let arena: Vec<u8> = (0..4_000).map(|index| index as u8).collect();
    let mut outbox = Outbox::default();
    for (place, len) in [40, 40, 40, 30, 40, 0, 600, 40].into_iter().enumerate() {
        let span = Span {
            region: Region::Arena,
            offset: place as u32 * 300,
            len,
        };
        let train = Train {
            envelope,
            span,
            segment: 0,
        };
        (0..2).for_each(|socket| outbox.forward(UpstreamSocketId(socket), &train, None, &arena));
    }
    for socket in [UpstreamSocketId(0), UpstreamSocketId(1)] {
        let parcels: Vec<(u32, u16)> = outbox
            .parcels(socket)
            .map(|parcel| (parcel.span.len, parcel.segment))
            .collect();
        assert_eq!(
            parcels,
            [(40, 0), (110, 40), (40, 0), (0, 0), (600, 0), (40, 0)]
        );
        let joined = outbox.parcels(socket).nth(1).unwrap();
        let bytes = [&arena[300..340], &arena[600..640], &arena[900..930]].concat();
        assert_eq!(outbox.bytes(&arena, joined.span), bytes);
    }
    assert_eq!(outbox.scratch.len(), 40 + 40 + 30 + 40 + 40, "copied once");
}
