//! No memory is allocated for a datagram. Once all buffers have their sizes, every turn reuses them. An allocator
//! counts the allocations of the test's own thread.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver as Jobs, Sender, bounded, unbounded};
use udispatch::config::Config;
use udispatch::config::kind::{BuildContext, BuildError, OpenedUpstream};
use udispatch::datagram::{Envelope, Region, Span, Train};
use udispatch::dispatch::dispatcher::{
    Claim, Dispatcher, DispatcherParts, ListenerRouting, Lookup,
};
use udispatch::dispatch::handler::{Batch, HandlerId, Names};
use udispatch::dispatch::id::{ListenerId, LocalListener, UpstreamId};
use udispatch::dispatch::limit::Limit;
use udispatch::dispatch::reply_policy::ReplyFilter;
use udispatch::dispatch::route_table::{Match, RouteId, RouteTable};
use udispatch::dispatch::sink::{Job, LineSink};
use udispatch::dispatch::tap::{Tap, TapCounts, TapId};
use udispatch::handlers::KINDS;
use udispatch::net::receive::Receiver;
use udispatch::net::socket::{ListenerOptions, bind_listener};
use udispatch::net::upstream::UpstreamSocketOptions;
use udispatch::worker::flush::{FlushSockets, Flusher};
use udispatch::worker::listener::{Listener, ListenerParts};
use udispatch::worker::upstream_sockets::{UpstreamSockets, UpstreamTarget};
use udispatch::worker::worker_state::SocketSlot;

thread_local! {
    /// Allocations of this thread while it was counting.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    // A thread that is ending has no counter any more.
    let _ = COUNT.try_with(|counter| counter.set(counter.get().map(|count| count + 1)));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory but a cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of allocations that an action makes on this thread.
fn allocations(action: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    action();
    COUNT.take().expect("counting")
}

/// Datagrams of a measurement, and of the warm-up before it.
const DATAGRAMS: usize = 10_000;
/// Number of trains in one turn.
const TRAINS: usize = 32;

/// Every kind of handler with every `pick`, each on a route of its own, and on one route with several handlers.
const CONFIG: &str = r#"
    [[route]]
    destination = "127.0.0.1:5000"
    handler = "h0_echo"
    [[route]]
    destination = "127.0.0.2:5000"
    handler = "h1_reply"
    [[route]]
    destination = "127.0.0.3:5000"
    handler = "h2_text"
    [[route]]
    destination = "127.0.0.4:5000"
    handler = "h3_json"
    [[route]]
    destination = "127.0.0.5:5000"
    handler = "h4_hex"
    [[route]]
    destination = "127.0.0.6:5000"
    handler = "h5_drop"
    [[route]]
    destination = "127.0.0.7:5000"
    handler = "h6_all"
    [[route]]
    destination = "127.0.0.8:5000"
    handler = "h7_round_robin"
    [[route]]
    destination = "127.0.0.9:5000"
    handler = "h8_random"
    [[route]]
    destination = "127.0.0.10:5000"
    handler = "h9_hash"
    [[route]]
    destination = "127.0.0.0/8:5000"
    handler = ["h0_echo", "h5_drop", "h6_all"]

    [handler.h0_echo]
    kind = "echo"
    [handler.h1_reply]
    kind = "reply"
    text = "pong"
    [handler.h2_text]
    kind = "print"
    [handler.h3_json]
    kind = "print"
    format = "json"
    [handler.h4_hex]
    kind = "print"
    format = "hex"
    [handler.h5_drop]
    kind = "drop"
    [handler.h6_all]
    kind = "forward"
    pick = "all"
    upstreams = ["198.51.100.1:9001", "198.51.100.1:9002"]
    [handler.h7_round_robin]
    kind = "forward"
    replies = false
    upstreams = ["198.51.100.1:9001", "198.51.100.1:9002"]
    [handler.h8_random]
    kind = "forward"
    replies = false
    pick = "random"
    upstreams = ["198.51.100.1:9001", "198.51.100.1:9002"]
    [handler.h9_hash]
    kind = "forward"
    replies = false
    pick = "hash"
    upstreams = ["198.51.100.1:9001", "198.51.100.1:9002"]
"#;

fn config() -> Config {
    Config::parse(Path::new("allocation.toml"), CONFIG, KINDS)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// The upstreams of each handler, which all lead to one receiver.
const UPSTREAMS_EACH: usize = 2;

/// The upstream sockets of a worker.
struct Bench {
    handler: HandlerId,
    jobs: Sender<Job>,
    upstream_sockets: UpstreamSockets,
}

impl BuildContext for Bench {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        let id = UpstreamId((self.handler.index() * UPSTREAMS_EACH + place) as u32);
        let socket = self.upstream_sockets.open_one_way(id).expect("a socket");
        Ok(OpenedUpstream {
            upstream: id,
            socket,
            address: Some(([203, 0, 113, 1], 53).into()),
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        Ok(LineSink::new(self.jobs.clone()))
    }

    fn seed(&mut self) -> u64 {
        7
    }
}

/// A dispatcher with one wildcard listener over all routes, and its sockets.
fn dispatcher(jobs: Sender<Job>, upstream: SocketAddr) -> (Dispatcher, UpstreamSockets) {
    let config = config();
    let budget = Arc::new(Limit::new(1_000));
    let target = |number: usize| UpstreamTarget {
        handler: HandlerId((number / UPSTREAMS_EACH) as u32),
        address: Some(upstream),
        options: UpstreamSocketOptions::plain(1 << 20),
        keeps_source: false,
        budget: Arc::clone(&budget),
    };
    let upstreams = config.handlers.len() * UPSTREAMS_EACH;
    let sockets = UpstreamSockets::new((0..upstreams).map(target).collect());
    let mut bench = Bench {
        handler: HandlerId(0),
        jobs,
        upstream_sockets: sockets,
    };
    let mut handlers = Vec::new();
    for (index, handler) in config.handlers.iter().enumerate() {
        bench.handler = HandlerId(index as u32);
        handlers.push(handler.spec.build(&mut bench).expect("a handler"));
    }
    let row = |(index, route): (usize, &udispatch::config::Route)| Match {
        net: route.destinations[0].value.net,
        ports: (5_000, 5_000),
        interface: None,
        source: None,
        route: RouteId(index as u32),
    };
    let rows = config.routes.iter().enumerate().map(row).collect();
    let table = Arc::new(RouteTable::new(rows).for_port(5_000));
    let claim = Claim::Wildcard {
        owner: true,
        claimed: Vec::new(),
    };
    let routings = vec![ListenerRouting {
        id: ListenerId::new(0),
        lookup: Lookup::Table(table),
        claim,
    }];
    let routes = config
        .routes
        .iter()
        .map(|route| route.handlers.clone())
        .collect();
    let reply_filter = ReplyFilter::new(["0.0.0.0:5000".parse().expect("an address")], [], []);
    let names = Names {
        routes: config
            .routes
            .iter()
            .map(|route| route.label.clone())
            .collect(),
        ..Names::default()
    };
    (
        Dispatcher::new(DispatcherParts {
            listeners: routings,
            routes,
            handlers,
            reply_filter: Arc::new(reply_filter),
            names: Arc::new(names),
            listener_total: 1,
            upstream_total: upstreams,
        }),
        bench.upstream_sockets,
    )
}

/// The consumer of sinks: takes everything, and returns the buffers.
fn consume(jobs: &Jobs<Job>) {
    while let Ok(Job::Lines(lines)) = jobs.try_recv() {
        lines.done(true);
    }
}

/// An address that nothing is sent to, because the test empties the outbox itself.
fn nobody() -> SocketAddr {
    "127.0.0.1:9".parse().expect("an address")
}

/// The trains of a turn. Every route gets its share, in single datagrams and longer trains.
fn trains(turn: usize) -> Vec<Train> {
    let train = |slot: usize| {
        let number = slot / 3 + turn;
        let dst: IpAddr = [127, 0, 0, (1 + number % 12) as u8].into();
        let dst = SocketAddr::new(dst, 5_000);
        let segment = if slot.is_multiple_of(3) { 100 } else { 0 };
        let len = if segment == 0 { 64 } else { 950 };
        Train {
            envelope: Envelope {
                src: SocketAddr::new([10, 0, 0, (number % 7) as u8].into(), 4_000),
                dst,
                local: dst,
                interface: 1,
                ttl: Some(64),
                time_ns: Some(1_000_000_000_000_001_000),
            },
            span: Span {
                region: Region::Arena,
                offset: (slot * 1_000) as u32,
                len,
            },
            segment,
        }
    };
    (0..TRAINS).map(train).collect()
}

/// Runs one turn.
fn drive_once(
    (dispatcher, sockets): (&mut Dispatcher, &mut UpstreamSockets),
    jobs: &Jobs<Job>,
    trains: &[Train],
    arena: &[u8],
) {
    dispatcher.dispatch(LocalListener::new(0), &Batch::new(trains, arena), sockets);
    dispatcher.end_turn();
    dispatcher.sending().0.clear();
    consume(jobs);
}

/// Runs as many turns with every handler as the datagrams take.
fn drive(
    (dispatcher, sockets): &mut (Dispatcher, UpstreamSockets),
    jobs: &Jobs<Job>,
    turns: &[Vec<Train>],
    arena: &[u8],
) -> (usize, usize) {
    let mut datagrams = 0;
    let mut count = 0;
    while datagrams < DATAGRAMS {
        for trains in turns {
            drive_once((dispatcher, sockets), jobs, trains, arena);
            datagrams += trains.iter().map(Train::datagrams).sum::<u32>() as usize;
            count += 1;
        }
    }
    (datagrams, count)
}

/// Dispatching allocates nothing, whichever handlers a datagram goes to.
#[test]
fn dispatch_allocates_nothing() {
    let (sender, jobs) = bounded(1_024);
    let mut dispatcher = dispatcher(sender, nobody());
    let turns: Vec<Vec<Train>> = (0..36).map(trains).collect();
    // The payloads contain every byte, so that printing has to escape.
    let arena: Vec<u8> = (0..TRAINS * 1_000)
        .map(|index| (index % 256) as u8)
        .collect();
    drive(&mut dispatcher, &jobs, &turns, &arena);
    let mut datagrams = 0;
    let count = allocations(|| datagrams = drive(&mut dispatcher, &jobs, &turns, &arena).0);
    assert!(datagrams >= DATAGRAMS);
    assert_eq!(count, 0, "allocations for {datagrams} datagrams");
    let ledger = dispatcher.0.snapshot();
    assert!(ledger.balances());
    let idle = ledger.routes.iter().position(|tally| tally.received < 100);
    assert_eq!(idle, None, "every route was busy: {ledger:?}");
    let full: Vec<u64> = ledger
        .handlers
        .iter()
        .map(|count| count.tally.handled)
        .collect();
    assert_eq!(
        full.iter().filter(|handled| **handled == 0).count(),
        1,
        "only `drop` handles nothing: {full:?}"
    );
}

/// A tap does not make dispatching allocate, whether its reader keeps up or is stopped, and neither does measuring the
/// latency.
#[test]
fn looking_on_allocates_nothing() {
    let (sender, jobs) = bounded(1_024);
    let mut dispatcher = dispatcher(sender, nobody());
    let turns: Vec<Vec<Train>> = (0..36).map(trains).collect();
    let arena = vec![b'x'; TRAINS * 1_000];
    let counts = Arc::new(TapCounts::default());
    let (reader, pages) = bounded(8);
    let (still, _pages) = bounded(8);
    for (number, reader) in [reader, still].into_iter().enumerate() {
        let tap = Tap::new(
            TapId(number as u64),
            Arc::default(),
            256,
            reader,
            Arc::clone(&counts),
        );
        dispatcher.0.taps().add(tap);
    }
    dispatcher.0.measure_latency();
    let look = |dispatcher: &mut (Dispatcher, UpstreamSockets)| {
        let mut shown = 0;
        for _ in 0..DATAGRAMS / TRAINS {
            dispatcher.0.taps().begin_turn(1);
            drive_once(
                (&mut dispatcher.0, &mut dispatcher.1),
                &jobs,
                &turns[0],
                &arena,
            );
            dispatcher.0.settle_latency(1_000_000_000_000_002_000);
            pages.try_iter().for_each(|page| {
                shown += page.views().count() as u64;
                page.done();
            });
        }
        shown
    };
    look(&mut dispatcher);
    let mut shown = 0;
    let count = allocations(|| shown = look(&mut dispatcher));
    assert_eq!(
        count, 0,
        "allocations for {shown} datagrams that were shown"
    );
    let (matched, missed) = counts.get();
    assert!(
        shown > 5_000 && missed > 5_000 && matched > shown + missed,
        "{shown} shown, {missed} missed of {matched}"
    );
    let handled: u64 = dispatcher
        .0
        .snapshot()
        .listeners
        .iter()
        .map(|count| count.tally.handled)
        .sum();
    assert!(
        dispatcher
            .0
            .snapshot()
            .latency
            .is_some_and(|latency| latency.count() > 5_000 && latency.count() <= handled)
    );
}

/// An unbounded channel to the consumer, as the control plane makes it, allocates for 31 buffers at a time and not for
/// a datagram (crossbeam's list of blocks).
#[test]
fn an_unbounded_channel_costs_a_block_for_31_buffers() {
    let (sender, jobs) = unbounded();
    let mut dispatcher = dispatcher(sender, nobody());
    let turns: Vec<Vec<Train>> = (0..36).map(trains).collect();
    let arena = vec![b'x'; TRAINS * 1_000];
    drive(&mut dispatcher, &jobs, &turns, &arena);
    let mut datagrams = 0;
    let mut count_of_turns = 0;
    let count =
        allocations(|| (datagrams, count_of_turns) = drive(&mut dispatcher, &jobs, &turns, &arena));
    let buffers = 3 * count_of_turns as u64; // Three handlers print.
    assert!(
        count <= buffers / 31 + 1,
        "{count} allocations for at most {buffers} buffers of {datagrams} datagrams"
    );
}

/// Receiving from a real socket, dispatching and sending through real sockets allocate nothing.
#[test]
fn a_worker_turn_over_sockets_allocates_nothing() {
    let upstream = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    upstream.set_nonblocking(true).expect("nonblocking");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_nonblocking(true).expect("nonblocking");
    let options = ListenerOptions {
        reuse_port: false,
        receive_buffer: 1 << 20,
        send_buffer: 1 << 20,
        destination: true,
        ttl: true,
        time: true,
        share: false,
    };
    let socket =
        bind_listener("0.0.0.0:0".parse().expect("an address"), &options).expect("a listener");
    let port = socket.local_addr().expect("its address").port();
    // Routes have a port of their own. The port that the kernel chose is only where the client sends.
    let parts = ListenerParts {
        slot: SocketSlot {
            listener: ListenerId::new(0),
            index: 0,
        },
        address: "0.0.0.0:5000".parse().expect("an address"),
        options,
        receives_source: true,
        is_late: false,
    };
    let listener = Listener::new(socket, parts);
    let (sender, jobs) = bounded(1_024);
    let mut listeners = [listener];
    let (mut dispatcher, mut sockets) =
        dispatcher(sender, upstream.local_addr().expect("its address"));
    let mut receiver = Receiver::new();
    let mut flusher = Flusher::default();
    let mut trains: Vec<Train> = Vec::with_capacity(TRAINS);
    let mut buffer = vec![0; 1 << 16];
    let targets: Vec<SocketAddr> = (1..13)
        .map(|last| SocketAddr::new([127, 0, 0, last].into(), port))
        .collect();
    let mut work = |datagrams: usize| {
        let mut received = 0;
        let mut answered = 0;
        let mut passed_on = 0;
        for turn in 0..datagrams.div_ceil(TRAINS) {
            for slot in 0..TRAINS {
                let target = targets[(turn + slot / 4) % targets.len()];
                client
                    .send_to(&buffer[..20 + slot % 2], target)
                    .expect("sent");
            }
            // On loopback, what is sent has arrived.
            received += receiver
                .receive(listeners[0].send_socket.socket(), 128, true)
                .expect("received");
            trains.clear();
            receiver
                .slots()
                .for_each(|slot| listeners[0].train(&slot, &mut trains).expect("a train"));
            let batch = Batch::new(&trains, receiver.arena());
            dispatcher.dispatch(LocalListener::new(0), &batch, &mut sockets);
            dispatcher.end_turn();
            let (outbox, ledger) = dispatcher.sending();
            let sockets = FlushSockets {
                listeners: &mut listeners,
                upstream_sockets: &mut sockets,
            };
            flusher.flush(sockets, outbox, receiver.arena(), ledger);
            consume(&jobs);
            while client.recv_from(&mut buffer).is_ok() {
                answered += 1;
            }
            while upstream.recv_from(&mut buffer).is_ok() {
                passed_on += 1;
            }
        }
        (received, answered, passed_on)
    };
    work(DATAGRAMS / 4);
    let mut done = (0, 0, 0);
    let count = allocations(|| done = work(DATAGRAMS));
    assert!(
        done.0 >= DATAGRAMS && done.1 > DATAGRAMS / 10 && done.2 > DATAGRAMS / 10,
        "work was done: {done:?}"
    );
    assert_eq!(count, 0, "allocations for {} datagrams", done.0);
    let ledger = dispatcher.snapshot();
    assert!(ledger.balances());
    assert!(
        ledger
            .handlers
            .iter()
            .all(|handler| handler.failed.is_empty()),
        "{ledger:?}"
    );
}
