//! Tests of `dispatch/dispatcher.rs`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::datagram::{Envelope, Region, Span, Train};
use crate::dispatch::handler::NoSockets;
use crate::dispatch::ledger::{HandlerCount, UpstreamCount};

/// A handler with a deadline at a fixed time after its last call. It counts how often the deadline is read.
struct Sleeper {
    every: u64,
    deadline: Option<Time>,
    queries: Arc<AtomicU32>,
    called: Arc<AtomicU32>,
}

impl Handler for Sleeper {
    fn on_batch(&mut self, _: &Batch<'_>, cx: &mut Context<'_>) {
        self.deadline = Some(Time(cx.now().0 + self.every));
    }

    fn forwarding(&self) -> Option<&dyn Forwarding> {
        Some(self)
    }

    fn forwarding_mut(&mut self) -> Option<&mut dyn Forwarding> {
        Some(self)
    }
}

impl Forwarding for Sleeper {
    fn on_trouble(&mut self, _: UpstreamSocketId, _: Trouble, _: &mut Context<'_>) {}

    fn on_upstream_event(&mut self, _: UpstreamId, _: UpstreamEvent, _: &mut Context<'_>) {}

    fn account(&self, _: &mut HandlerCount, _: &mut [UpstreamCount]) {}

    fn save(&self) -> SavedState {
        SavedState::default()
    }

    fn inherit(&mut self, _: SavedState, _: &mut Context<'_>) {}

    fn on_time(&mut self, cx: &mut Context<'_>) {
        self.called.fetch_add(1, Ordering::Relaxed);
        self.deadline = Some(Time(cx.now().0 + self.every));
    }

    fn deadline(&self) -> Option<Time> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.deadline
    }
}

/// Of a thousand handlers, only those that were called have their deadline read again. Each is called at its deadline.
#[test]
fn only_called_handlers_are_queried() {
    let queries = Arc::new(AtomicU32::new(0));
    let called = Arc::new(AtomicU32::new(0));
    let sleeper = |every| {
        let queries = Arc::clone(&queries);
        let called = Arc::clone(&called);
        Box::new(Sleeper {
            every,
            deadline: None,
            queries,
            called,
        }) as Box<dyn Handler>
    };
    let handlers = (0..1_000).map(|number| sleeper(10 + number)).collect();
    let routings = (0..1_000).map(|id| ListenerRouting {
        id: ListenerId::new(id),
        lookup: Lookup::Fixed(RouteId(id as u32)),
        claim: Claim::All,
    });
    let routes = (0..1_000).map(|number| vec![HandlerId(number)]).collect();
    let reply_filter = Arc::new(ReplyFilter::default());
    let names = Arc::new(Names::default());
    let mut dispatcher = Dispatcher::new(DispatcherParts {
        listeners: routings.collect(),
        routes,
        handlers,
        reply_filter,
        names,
        listener_total: 1_000,
        upstream_total: 0,
    });
    assert_eq!(
        (dispatcher.deadline(), queries.swap(0, Ordering::Relaxed)),
        (None, 1_000)
    );

    let address = SocketAddr::from(([192, 0, 2, 1], 53));
    let envelope = Envelope {
        src: address,
        dst: address,
        local: address,
        interface: 0,
        ttl: None,
        time_ns: None,
    };
    let train = Train {
        envelope,
        span: Span {
            region: Region::Arena,
            offset: 0,
            len: 0,
        },
        segment: 0,
    };
    let mut sockets = NoSockets;
    for (now, listener) in [(0, 5), (0, 500), (1, 7)] {
        dispatcher.set_time(Time(now));
        dispatcher.dispatch(
            LocalListener::new(listener),
            &Batch::new(&[train], &[]),
            &mut sockets,
        );
    }
    assert_eq!(
        (dispatcher.deadline(), queries.swap(0, Ordering::Relaxed)),
        (Some(Time(15)), 3)
    );
    for (now, deadline, calls) in [
        (14, 15, 0),
        (15, 18, 1),
        (18, 30, 1),
        (30, 35, 1),
        (35, 45, 1),
    ] {
        dispatcher.set_time(Time(now));
        dispatcher.run_timers(&mut sockets);
        assert_eq!(
            (dispatcher.deadline(), called.swap(0, Ordering::Relaxed)),
            (Some(Time(deadline)), calls),
            "at {now}"
        );
    }
    assert_eq!(queries.load(Ordering::Relaxed), 4);
}

/// Of two handlers' drops, the intersection holds the datagrams that both dropped, with the first handler's reasons.
#[test]
fn what_all_handlers_dropped() {
    let of = |places: &[u32], reason| Drops(places.iter().map(|place| (*place, reason)).collect());
    let mut common = of(&[0, 2, 3, 7], DropReason::SinkFull);
    common.intersect(&of(&[1, 2, 7, 8], DropReason::Discarded));
    assert_eq!(
        common.0,
        [(2, DropReason::SinkFull), (7, DropReason::SinkFull)]
    );
    common.intersect(&Drops::default());
    assert_eq!(common.0, []);
}
