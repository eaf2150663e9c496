//! A dispatcher without sockets, for the targets of the data path.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::config::Config;
use crate::config::kind::{BuildContext, BuildError, OpenedUpstream};
use crate::dispatch::dispatcher::{Claim, Dispatcher, DispatcherParts, ListenerRouting, Lookup};
use crate::dispatch::handler::{Handler, HandlerId, Names, SocketTable};
use crate::dispatch::id::{ListenerId, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::reply_policy::ReplyFilter;
use crate::dispatch::route_table::RouteId;
use crate::dispatch::sink::LineSink;
use crate::dispatch::verdict::DropReason;
use crate::handlers::KINDS;

/// Numbers in place of sockets towards upstreams. A number is used once.
#[derive(Debug, Default)]
pub(super) struct SocketNumbers {
    next: u32,
    /// The numbers that are open and may be closed.
    pub(super) open: BTreeSet<u32>,
}

impl SocketNumbers {
    /// Returns a new number that may be closed.
    pub(super) fn lease(&mut self) -> UpstreamSocketId {
        let socket = self.fixed();
        self.open.insert(socket.0);
        socket
    }

    fn fixed(&mut self) -> UpstreamSocketId {
        self.next += 1;
        UpstreamSocketId(self.next - 1)
    }
}

impl SocketTable for SocketNumbers {
    fn open(&mut self, _: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        Ok(self.lease())
    }

    fn close(&mut self, socket: UpstreamSocketId) {
        assert!(
            self.open.remove(&socket.0),
            "{socket:?} is closed but was not open"
        );
    }
}

/// A build context that opens nothing.
struct StageBuildContext<'a> {
    first: usize,
    numbers: &'a mut SocketNumbers,
}

impl BuildContext for StageBuildContext<'_> {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        Ok(OpenedUpstream {
            upstream: UpstreamId::new(self.first + place),
            socket: self.numbers.fixed(),
            address: Some(([203, 0, 113, 1], 53).into()),
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        Err(BuildError("no handler prints here".to_owned()))
    }

    fn seed(&mut self) -> u64 {
        1
    }
}

/// Returns the address of the listener.
pub(super) fn local() -> SocketAddr {
    ([192, 0, 2, 9], 53).into()
}

/// Returns a dispatcher with the handlers of a configuration, on one listener whose datagrams go to all of them. The
/// second value is the names, which the dispatcher shares with its pages for taps.
pub(super) fn dispatcher(config: &str, numbers: &mut SocketNumbers) -> (Dispatcher, Weak<Names>) {
    let config = Config::parse(Path::new("stage.toml"), config, KINDS)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
    let mut upstreams = 0;
    for handler in &config.handlers {
        let built = handler.spec.build(&mut StageBuildContext {
            first: upstreams,
            numbers,
        });
        handlers.push(built.unwrap_or_else(|error| panic!("{error}")));
        upstreams += handler.spec.upstreams().len();
    }
    let names = Names {
        routes: vec!["\"route\"".to_owned()],
        listeners: vec![local().to_string()],
        handlers: config
            .handlers
            .iter()
            .map(|handler| handler.name.clone())
            .collect(),
        interfaces: [(2, "eth0".to_owned())].into(),
        upstreams: (0..upstreams)
            .map(|number| format!("upstream {number}"))
            .collect(),
    };
    let listener = ListenerRouting {
        id: ListenerId::new(0),
        lookup: Lookup::Fixed(RouteId(0)),
        claim: Claim::All,
    };
    let route = (0..handlers.len()).map(HandlerId::new).collect();
    let (names, filter) = (Arc::new(names), ReplyFilter::new([local()], [], []));
    let weak = Arc::downgrade(&names);
    let dispatcher = Dispatcher::new(DispatcherParts {
        listeners: vec![listener],
        routes: vec![route],
        handlers,
        reply_filter: Arc::new(filter),
        names,
        listener_total: 1,
        upstream_total: upstreams,
    });
    (dispatcher, weak)
}
