//! Lets the handlers of a route process an imagined datagram, with an outbox that is described instead of sent.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::config::kind::{BuildContext, BuildError, HandlerSpec, OpenedUpstream, Upstream};
use crate::datagram::{Datagram, Envelope, Region, Span, Train};
use crate::dispatch::dispatcher::{Dispatcher, ListenerRouting};
use crate::dispatch::handler::{Batch, Handler, HandlerId, SocketTable};
use crate::dispatch::id::{LocalListener, UpstreamId};
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
    context: DrySite<'a>,
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
        let mut context = DrySite {
            upstreams: &plan.upstreams,
            handler: HandlerId(0),
            lanes: Vec::new(),
            kept: Vec::new(),
        };
        let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
        for (index, handler) in config.handlers.iter().enumerate() {
            context.handler = HandlerId::new(index);
            handlers.push(handler.spec.build(&mut context)?);
        }
        let listener = ListenerRouting {
            id: 0,
            lookup: listener.lookup.clone(),
            claim: listener.claim(0),
        };
        let routes = config
            .routes
            .iter()
            .map(|route| route.handlers.clone())
            .collect();
        let dispatcher = Dispatcher::new(
            vec![listener],
            routes,
            handlers,
            Arc::clone(&plan.reply_filter),
            Arc::clone(&plan.names),
            1,
            plan.upstreams.iter().len(),
        );
        Ok(DryRun {
            config,
            plan,
            dispatcher,
            context,
        })
    }

    /// Passes events about the upstreams to their handlers.
    pub(super) fn change(&mut self, changes: &[(UpstreamId, UpstreamEvent)]) {
        for (upstream, change) in changes {
            let handler = self.plan.upstreams.get(*upstream).handler;
            self.dispatcher
                .upstream_event(handler, *upstream, *change, &mut self.context);
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
        self.dispatcher.dispatch(0, &batch, &mut self.context);
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
            let leads_to = |lane: UpstreamSocketId| {
                self.plan.upstreams.get(self.context.lanes[lane.0 as usize])
            };
            let mut sent_to = Vec::new();
            let touched = outbox.touched().iter().copied();
            for lane in touched.filter(|lane| leads_to(*lane).handler == handler) {
                let upstream = &leads_to(lane).upstream;
                for parcel in outbox.parcels(lane) {
                    let (len, ttl) = (parcel.span.len, ttl_words(parcel.ttl));
                    line(text, "", &format!("sends {len} bytes to {upstream}{ttl}"));
                    sent_to.push(upstream);
                }
            }
            if !sent_to.is_empty() {
                others(text, &*named.spec, datagram, &sent_to);
            }
        }
    }
}

/// Returns the imagined datagram as it would be in a worker's memory.
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
    let replies = outbox.replies(LocalListener(0)).iter();
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
fn others(
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
struct DrySite<'a> {
    upstreams: &'a Upstreams,
    handler: HandlerId,
    /// The upstream of each upstream socket.
    lanes: Vec<UpstreamId>,
    kept: Vec<Receiver<Job>>,
}

impl SocketTable for DrySite<'_> {
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        self.lanes.push(upstream);
        Ok(UpstreamSocketId::new(self.lanes.len() - 1))
    }

    fn close(&mut self, _: UpstreamSocketId) {}
}

impl BuildContext for DrySite<'_> {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        let upstream = self.upstreams.id(self.handler, place);
        self.lanes.push(upstream);
        let address = self.upstreams.get(upstream).address.as_ref().ok().copied();
        Ok(OpenedUpstream {
            upstream,
            socket: UpstreamSocketId::new(self.lanes.len() - 1),
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
