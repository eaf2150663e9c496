//! The cost of a tap for the data path: `cargo bench --bench tap`. A turn has 32 small datagrams of one route to a
//! handler that does next to nothing, so that any addition shows: without a tap, with a reader that keeps up, and with
//! one that is stopped.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Receiver, unbounded};
use udispatch::datagram::{Envelope, Region, Span, Train};
use udispatch::dispatch::dispatcher::{
    Claim, Dispatcher, DispatcherParts, ListenerRouting, Lookup,
};
use udispatch::dispatch::handler::{Batch, Context, Handler, HandlerId, Names, NoSockets};
use udispatch::dispatch::id::{ListenerId, LocalListener};
use udispatch::dispatch::reply_policy::ReplyFilter;
use udispatch::dispatch::route_table::RouteId;
use udispatch::dispatch::tap::{Tap, TapId, TapPage};
use udispatch::dispatch::verdict::Verdict;

/// Number of datagrams in a turn.
const DATAGRAMS: u32 = 32;
/// Number of bytes in each datagram.
const BYTES: u32 = 128;

/// A handler that handles everything and does nothing.
struct Nothing;

impl Handler for Nothing {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        batch.for_each(cx, |datagram, _| {
            black_box(datagram.payload.len());
            Verdict::Handled
        });
    }
}

fn dispatcher() -> Dispatcher {
    let routings = vec![ListenerRouting {
        id: ListenerId::new(0),
        lookup: Lookup::Fixed(RouteId(0)),
        claim: Claim::All,
    }];
    let handlers: Vec<Box<dyn Handler>> = vec![Box::new(Nothing)];
    let reply_filter = Arc::new(ReplyFilter::default());
    let names = Arc::new(Names::default());
    Dispatcher::new(DispatcherParts {
        listeners: routings,
        routes: vec![vec![HandlerId(0)]],
        handlers,
        reply_filter,
        names,
        listener_total: 1,
        upstream_total: 0,
    })
}

/// A tap with its reader.
fn tap(dispatcher: &mut Dispatcher) -> Receiver<TapPage> {
    let (reader, pages) = unbounded();
    dispatcher.taps().add(Tap::new(
        TapId(0),
        Arc::default(),
        256,
        reader,
        Arc::default(),
    ));
    pages
}

fn turn(dispatcher: &mut Dispatcher, trains: &[Train], arena: &[u8]) {
    let batch = Batch::new(black_box(trains), arena);
    dispatcher.dispatch(LocalListener::new(0), &batch, &mut NoSockets);
    dispatcher.end_turn();
}

fn bench(criterion: &mut Criterion) {
    let ip: IpAddr = [192, 0, 2, 1].into();
    let src = SocketAddr::new(ip, 4_000);
    let dst = SocketAddr::new(ip, 53);
    let envelope = Envelope {
        src,
        dst,
        local: dst,
        interface: 0,
        ttl: None,
        time_ns: None,
    };
    let train = |slot| {
        let span = Span {
            region: Region::Arena,
            offset: slot * BYTES,
            len: BYTES,
        };
        Train {
            envelope,
            span,
            segment: 0,
        }
    };
    let trains: Vec<Train> = (0..DATAGRAMS).map(train).collect();
    let arena = vec![b'x'; (DATAGRAMS * BYTES) as usize];
    let mut group = criterion.benchmark_group("turn of 32");
    group.throughput(Throughput::Elements(u64::from(DATAGRAMS)));

    let mut alone = dispatcher();
    group.bench_function("nobody looks on", |bencher| {
        bencher.iter(|| turn(&mut alone, &trains, &arena));
    });

    let mut tapped = dispatcher();
    let pages = tap(&mut tapped);
    group.bench_function("a reader keeps up", |bencher| {
        bencher.iter(|| {
            tapped.taps().begin_turn(1);
            turn(&mut tapped, &trains, &arena);
            pages.try_iter().for_each(TapPage::done);
        });
    });

    let mut tapped = dispatcher();
    let _pages = tap(&mut tapped);
    group.bench_function("a reader stands still", |bencher| {
        bencher.iter(|| {
            tapped.taps().begin_turn(1);
            turn(&mut tapped, &trains, &arena);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
