//! What the supervisor answers between two signals, and what it remembers for that. One request at a time, none of which
//! waits longer than a second for a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use mio::Waker;

use crate::build::error::Refusal;
use crate::config::Config;
use crate::config::words::{did_you_mean, quoted};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::handover::running::{Part, Stopped};
use crate::observe::snapshot::{Facts, Flows, Journal, Life, Memory, Snapshot, unix_seconds};
use crate::observe::tap::Lookers;
use crate::plan::Plan;
use crate::supervisor::Supervisor;
use crate::supervisor::log_level;
use crate::supervisor::reload::Wish;
use crate::supervisor::reply::Reply;
use crate::supervisor::requests::{Asked, Request, Requests};
use crate::supervisor::sessions::{Lister, SessionList, SessionQuery};
use crate::worker::command::Command;

/// Requests that are answered before signals are looked at again.
const ANSWERS_MAX: usize = 16;

/// What the supervisor remembers for its answers.
pub(crate) struct Office {
    /// The way to ask.
    pub(crate) requests: Requests,
    /// What is asked; gone once it is stopping.
    asked: Option<Asked>,
    /// What the process has been through.
    pub(crate) life: Life,
    /// Upstreams that were drained by hand, by handler and text: they stay so when the configuration changes.
    drained: BTreeSet<(String, String)>,
    /// Each worker's accounts, as it last gave them.
    parts: Vec<Part>,
    flows: Flows,
    memory: Memory,
    journal: Journal,
    /// Who looks on.
    pub(crate) lookers: Lookers,
}

impl Office {
    /// Of a configuration that is about to be served. `waker` wakes the supervisor.
    pub(crate) fn new(config: &Config, plan: &Plan, waker: Arc<Waker>) -> Office {
        let (requests, asked) = Requests::new(waker);
        let (life, flows) = (Life::begin(), Flows::of(config, plan));
        let (drained, parts, memory) = (BTreeSet::new(), Vec::new(), Memory::default());
        let (journal, lookers) = (Journal::default(), Lookers::default());
        Office {
            requests,
            asked: Some(asked),
            life,
            drained,
            parts,
            flows,
            memory,
            journal,
            lookers,
        }
    }

    /// What was drained by hand.
    pub(crate) fn drained(&self) -> impl Iterator<Item = (String, String)> {
        self.drained.iter().cloned()
    }

    /// Another process has given what people had drained there.
    pub(crate) fn inherit(&mut self, drained: Vec<(String, String)>, generation: u64) {
        self.drained = drained.into_iter().collect();
        self.life.generation = generation + 1;
        self.memory = Memory::inherited();
    }

    /// Another configuration is served from now on, by other workers.
    pub(crate) fn on_reload(&mut self, config: &Config, plan: &Plan) {
        self.life.generation += 1;
        self.life.reloads.applied += 1;
        self.life.reloaded = Some(unix_seconds());
        self.flows = Flows::of(config, plan);
        self.parts.clear();
    }
}

impl Supervisor {
    /// The way to ask the running daemon, for any thread.
    pub fn requests(&self) -> Requests {
        self.office.requests.clone()
    }

    /// Answers what is asked now, as far as signals can wait for it. Whether it was asked to stop.
    pub(crate) fn answer_requests(&mut self) -> bool {
        for _ in 0..ANSWERS_MAX {
            let Some(request) = self.office.asked.as_ref().and_then(Asked::next) else {
                return false;
            };
            match request {
                Request::Snapshot(reply) => reply.send(Box::new(self.snapshot())),
                Request::Sessions(query, reply) => self.list_sessions(&query, reply),
                Request::Explain(imagined, reply) => self.explain_live(imagined, reply),
                Request::Reload { is_dry_run, reply } => self.reload(Wish {
                    is_dry_run,
                    reply: Some(reply),
                }),
                Request::Drain {
                    upstream,
                    drain,
                    reply,
                } => reply.send(self.drain(&upstream, drain)),
                Request::Tap(query, reply) => reply.send(self.tap(query)),
                Request::Log(level, reply) => reply.send(log_level::set(level)),
                Request::Stop(reply) => {
                    reply.send("stopping; what the sockets hold is still handled".to_owned());
                    return true;
                }
            }
        }
        // The rest comes after the signals.
        let _ = self.office.requests.wake();
        false
    }

    /// From now on nobody is answered: it is about to end.
    pub(crate) fn close_office(&mut self) {
        self.office.asked = None;
        self.office.lookers.close();
    }

    /// The accounts of all workers, each as of one of its turns' ends. Of a worker that does not answer, the last ones.
    pub fn snapshot(&mut self) -> Snapshot {
        let asked = self.running.ledgers();
        self.office.parts.resize_with(asked.len(), Part::default);
        for (part, ledger) in self.office.parts.iter_mut().zip(asked) {
            part.answers = ledger.is_some();
            part.ledger = ledger.unwrap_or_else(|| std::mem::take(&mut part.ledger));
        }
        let snapshot = self.picture(false);
        self.office
            .journal
            .write(&snapshot.alarms, Instant::now(), unix_seconds());
        snapshot
    }

    /// The accounts at the end, when the workers have given their ledgers back.
    pub(crate) fn last_snapshot(&mut self, stopped: &Stopped) -> Snapshot {
        let ledgers = stopped.ledgers().map(|ledger| Part {
            ledger,
            answers: false,
        });
        self.office.parts = ledgers.collect();
        self.picture(true)
    }

    fn picture(&mut self, is_stopping: bool) -> Snapshot {
        let Office {
            requests,
            life,
            drained,
            parts,
            flows,
            memory,
            ..
        } = &mut self.office;
        // With what was counted by workers that are gone.
        let parts = self.running.with_history(parts);
        let facts = Facts {
            config: &self.running.config,
            plan: &self.running.plan,
            flows,
            rows: self.running.rows(),
            parts: &parts,
            upstreams: &self.running.upstream_states(),
            is_drained: &|handler, upstream| {
                drained.contains(&(handler.to_owned(), upstream.to_owned()))
            },
            life,
            admin: requests.visits.row(),
            troubles: requests.troubles.sentences(),
            is_stopping,
            receive_buffers: self.running.receive_buffers(),
            found: self.chores.found(),
            epoch: self.epoch,
        };
        Snapshot::new(facts, memory)
    }

    /// On a thread of its own: it may take a thousand turns of the workers.
    fn list_sessions(&self, query: &SessionQuery, reply: Reply<Result<SessionList, Refusal>>) {
        let workers = self.running.handles().cloned().collect();
        match Lister::new(query, &self.running.config, &self.running.plan, workers) {
            Ok(lister) => {
                let list = move || reply.send(Ok(lister.list()));
                // Where no thread can be had, the reply is dropped, which tells who waits.
                let _ = thread::Builder::new()
                    .name("sessions".to_owned())
                    .spawn(list);
            }
            Err(refusal) => reply.send(Err(refusal)),
        }
    }

    /// Gives an upstream nothing new any more, or again. What was done, as a sentence.
    fn drain(&mut self, text: &str, drain: bool) -> Result<String, Refusal> {
        let (handler, upstream, ids) = self.find_upstream(text)?;
        let name = (handler.clone(), upstream.clone());
        let is_new = match drain {
            true => self.office.drained.insert(name),
            false => self.office.drained.remove(&name),
        };
        self.tell_drain(&ids, drain);
        let done = match (drain, is_new) {
            (true, true) => "gets nothing new from now on; sessions that it has go on to their end",
            (true, false) => "was drained already",
            (false, true) => "gets its share again",
            (false, false) => "was not drained by hand; it gets its share, whatever the file says",
        };
        let done = format!("upstream {upstream} of handler {handler} {done}");
        log::info!("{done}");
        Ok(done)
    }

    /// Tells the workers again who was drained by hand: after a change of the configuration they do not know.
    pub(crate) fn drain_again(&self) {
        for (handler, upstream) in &self.office.drained {
            self.tell_drain(&self.ids_of(handler, upstream), true);
        }
    }

    fn tell_drain(&self, ids: &[UpstreamId], drain: bool) {
        for handle in self.running.handles() {
            for id in ids {
                // One that has ended is found out elsewhere.
                handle.send(Command::Change(*id, Change::Drain(drain)));
            }
        }
    }

    fn ids_of(&self, handler: &str, upstream: &str) -> Vec<UpstreamId> {
        let is_it = |located: &crate::plan::upstreams::Located| {
            self.running.config.handler(located.handler).name == handler
                && located.upstream.to_string() == upstream
        };
        let all = self.running.plan.upstreams.iter();
        all.filter(|(_, located)| is_it(located))
            .map(|(id, _)| id)
            .collect()
    }

    /// The handler and the text of the upstream that is meant, and its number. The address alone never means that of a handler
    /// which a reload has retired: nobody wrote that into the file.
    fn find_upstream(&self, text: &str) -> Result<(String, String, Vec<UpstreamId>), Refusal> {
        let all = self.running.plan.upstreams.iter().map(|(_, located)| {
            let handler = self.running.config.handler(located.handler);
            (
                (handler.name.clone(), located.upstream.to_string()),
                handler.is_retired,
            )
        });
        let all: BTreeMap<(String, String), bool> = all.collect();
        let full = |(handler, upstream): &(String, String)| format!("{handler}/{upstream}");
        let short = || {
            all.iter()
                .filter(|(_, is_retired)| !**is_retired)
                .map(|(name, _)| name)
        };
        let exact = all.keys().filter(|name| full(name) == text);
        let meant: BTreeSet<_> = exact.chain(short().filter(|name| name.1 == text)).collect();
        match meant.into_iter().collect::<Vec<_>>().as_slice() {
            [(handler, upstream)] => Ok((
                handler.clone(),
                upstream.clone(),
                self.ids_of(handler, upstream),
            )),
            [] => {
                let names: Vec<String> = all.keys().map(full).collect();
                let candidates = names
                    .iter()
                    .chain(short().map(|name| &name.1))
                    .map(String::as_str);
                let meant = did_you_mean(text, candidates)
                    .unwrap_or_else(|| "`udispatch upstreams` lists them".to_owned());
                Err(Refusal::Unknown(format!(
                    "there is no upstream {}; {meant}",
                    quoted(text)
                )))
            }
            several => {
                let names: Vec<String> = several.iter().map(|name| full(name)).collect();
                let text = quoted(text);
                Err(Refusal::Unknown(format!(
                    "{text} is an upstream of several handlers; write one of {}",
                    names.join(", ")
                )))
            }
        }
    }
}
