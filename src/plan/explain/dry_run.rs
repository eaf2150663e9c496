//! Lets the handlers of a route process a simulated datagram, with an outbox that is described instead of sent.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::config::kind::{BuildContext, BuildError, HandlerSpec, OpenedUpstream, Upstream};
use crate::datagram::{Datagram, Envelope, Region, Span, Train};
use crate::dispatch::dispatcher::{Dispatcher, DispatcherParts, ListenerRouting};
use crate::dispatch::handler::{Batch, Handler, HandlerId, SocketTable};
use crate::dispatch::id::{ListenerId, LocalListener, UpstreamId};
use crate::dispatch::ledger::Tally;
use crate::dispatch::outbox::{Outbox, UpstreamSocketId};
use crate::dispatch::sink::{Job, LineSink};
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::dispatch::verdict::DropReason;
use crate::number;
use crate::plan::explain::lines::{line, shortened};
use crate::plan::upstreams::Upstreams;
use crate::plan::{ListenerPlan, Plan};

/// A dispatcher like that of a worker, with one listener and without sockets.
pub(super) struct DryRun<'a> {
    config: &'a Config,
    plan: &'a Plan,
    dispatcher: Dispatcher,
    context: DryBuildContext<'a>,
}

impl<'a> DryRun<'a> {
    /// Builds every handler.
    ///
    /// # Errors
    ///
    /// Returns the error of the first handler that cannot be built.
    pub(super) fn new(
        config: &'a Config,
        plan: &'a Plan,
        listener: &ListenerPlan,
    ) -> Result<DryRun<'a>, BuildError> {
        let mut context = DryBuildContext {
            upstreams: &plan.upstreams,
            handler: HandlerId(0),
            upstream_sockets: Vec::new(),
            kept: Vec::new(),
        };
        let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
        for (index, handler) in config.handlers.iter().enumerate() {
            context.handler = HandlerId::new(index);
            handlers.push(handler.spec.build(&mut context)?);
        }
        let listener = ListenerRouting {
            id: ListenerId::new(0),
            lookup: listener.lookup.clone(),
            claim: listener.claim(0),
        };
        let routes = config
            .routes
            .iter()
            .map(|route| route.handlers.clone())
            .collect();
        let dispatcher = Dispatcher::new(DispatcherParts {
            listeners: vec![listener],
            routes,
            handlers,
            reply_filter: Arc::clone(&plan.reply_filter),
            names: Arc::clone(&plan.names),
            listener_total: 1,
            upstream_total: plan.upstreams.count(),
        });
        Ok(DryRun {
            config,
            plan,
            dispatcher,
            context,
        })
    }

    /// Passes events about the upstreams to their handlers.
    pub(super) fn apply_events(&mut self, events: &[(UpstreamId, UpstreamEvent)]) {
        for (upstream, event) in events {
            let handler = self.plan.upstreams.get(*upstream).handler;
            self.dispatcher
                .upstream_event(handler, *upstream, *event, &mut self.context);
        }
    }

    /// Lets the handlers process the datagram.
    pub(super) fn run(&mut self, datagram: &Datagram<'_>) {
        let train = Train {
            envelope: datagram.envelope,
            span: datagram.span,
            segment: 0,
        };
        let trains = [train];
        let batch = Batch::new(&trains, datagram.payload);
        self.dispatcher
            .dispatch(LocalListener::new(0), &batch, &mut self.context);
    }

    /// Appends to `text` what the handlers did with the datagram: the verdict of each, and what it would send.
    pub(super) fn describe(
        &mut self,
        text: &mut String,
        handlers: &[HandlerId],
        datagram: &Datagram<'_>,
    ) {
        let ledger = self.dispatcher.snapshot();
        let (outbox, _) = self.dispatcher.sending();
        for &handler in handlers {
            let named = &self.config.handlers[handler.index()];
            let what = format!("{}: {}", named.name, named.spec.describe());
            line(text, "handler", &what);
            if let Some(reason) = dropped(&ledger.handlers[handler.index()].tally) {
                let what = format!("drops it as {}: {}", reason.label(), reason.meaning());
                line(text, "", &what);
            }
            describe_replies(text, outbox, handler);
            let leads_to = |socket: UpstreamSocketId| {
                self.plan
                    .upstreams
                    .get(self.context.upstream_sockets[socket.0 as usize])
            };
            let mut sent_to = Vec::new();
            let touched = outbox.touched().iter().copied();
            for socket in touched.filter(|socket| leads_to(*socket).handler == handler) {
                let upstream = &leads_to(socket).upstream;
                for parcel in outbox.parcels(socket) {
                    let (len, ttl) = (parcel.span.len, ttl_words(parcel.ttl));
                    line(text, "", &format!("sends {len} bytes to {upstream}{ttl}"));
                    sent_to.push(upstream);
                }
            }
            if !sent_to.is_empty() {
                describe_alternatives(text, &*named.spec, datagram, &sent_to);
            }
        }
    }
}

/// Returns the simulated datagram as it would be in a worker's memory.
pub(super) fn datagram<'a>(payload: &'a [u8], envelope: &Envelope) -> Datagram<'a> {
    Datagram {
        payload,
        envelope: *envelope,
        span: Span {
            region: Region::Arena,
            offset: 0,
            len: number::to_u32(payload.len()),
        },
    }
}

fn describe_replies(text: &mut String, outbox: &Outbox, handler: HandlerId) {
    let replies = outbox.replies(LocalListener::new(0)).iter();
    for reply in replies.filter(|reply| reply.handler == handler) {
        let (len, ttl) = (reply.parcel.span.len, ttl_words(reply.parcel.ttl));
        let (from, to) = (reply.from, reply.to);
        line(
            text,
            "",
            &format!("sends {len} bytes from {from} to {to}{ttl}"),
        );
    }
}

fn ttl_words(ttl: Option<u8>) -> String {
    ttl.map_or(String::new(), |ttl| format!(", TTL {ttl}"))
}

/// Appends the other upstreams that may receive such a datagram, if the choice is not always the same.
fn describe_alternatives(
    text: &mut String,
    spec: &dyn HandlerSpec,
    datagram: &Datagram<'_>,
    sent_to: &[&Upstream],
) {
    let upstreams = spec.upstreams();
    let places = spec.would_reach(datagram).into_iter();
    let others: Vec<String> = places
        .map(|place| &upstreams[place])
        .filter(|upstream| !sent_to.iter().any(|sent| sent.is_same_place(upstream)))
        .map(ToString::to_string)
        .collect();
    if !others.is_empty() {
        line(
            text,
            "",
            &format!("other datagrams may go to {}", shortened(others, "or")),
        );
    }
}

fn dropped(tally: &Tally) -> Option<DropReason> {
    DropReason::ALL
        .iter()
        .copied()
        .find(|reason| tally.dropped_for(*reason) > 0)
}

/// A build context that opens nothing.
struct DryBuildContext<'a> {
    upstreams: &'a Upstreams,
    handler: HandlerId,
    /// The upstream of each upstream socket.
    upstream_sockets: Vec<UpstreamId>,
    kept: Vec<Receiver<Job>>,
}

impl SocketTable for DryBuildContext<'_> {
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        self.upstream_sockets.push(upstream);
        Ok(UpstreamSocketId::new(self.upstream_sockets.len() - 1))
    }

    fn close(&mut self, _: UpstreamSocketId) {}
}

impl BuildContext for DryBuildContext<'_> {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        let upstream = self.upstreams.id(self.handler, place);
        self.upstream_sockets.push(upstream);
        let address = self.upstreams.get(upstream).address.as_ref().ok().copied();
        Ok(OpenedUpstream {
            upstream,
            socket: UpstreamSocketId::new(self.upstream_sockets.len() - 1),
            address,
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        // The lines are never written. The description of a `print` handler says in words what it does.
        let (jobs, kept) = crossbeam_channel::unbounded();
        self.kept.push(kept);
        Ok(LineSink::new(jobs))
    }

    fn seed(&mut self) -> u64 {
        0
    }
}
