//! What a configuration amounts to on this machine, by names alone: what a new one is compared with, and what the numbers in
//! a handover mean, in another process too.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::upstream::{Egress, Upstream};
use crate::config::{Config, NamedHandler};
use crate::plan::{ListenerPlan, Plan, Role};

/// All rows in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The listeners.
    pub listeners: Vec<ListenerIdentity>,
    /// The routes.
    pub routes: Vec<RouteIdentity>,
    /// The handlers.
    pub handlers: Vec<HandlerIdentity>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerIdentity {
    /// What it is called.
    pub label: String,
    /// What makes a socket fit for it.
    pub key: ListenerKey,
}

/// What makes a socket fit for a listener: all that cannot be changed once it is bound and joined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListenerKey {
    /// What it is bound to.
    pub address: SocketAddr,
    /// Of a group: the interface that it is joined on, by index, and the sources, none for any.
    pub group: Option<(u32, Vec<IpAddr>)>,
    /// Whether several workers may have one.
    pub is_spread: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteIdentity {
    /// What it is called.
    pub label: String,
    /// What the file says of it, in canonical form.
    pub text: String,
}

/// A handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerIdentity {
    /// Its name.
    pub name: String,
    /// What its kind is called.
    pub kind: String,
    /// What the file says of it, in canonical form, and a mark of what was read elsewhere.
    pub text: String,
    /// Its upstreams, each with all that is said of the way there.
    pub upstreams: Vec<String>,
    /// Whether answers come back to clients that it keeps in mind.
    pub has_sessions: bool,
    /// Whether it only serves sessions that are left of an older configuration.
    pub is_retired: bool,
}

impl Identity {
    /// Of a configuration and its plan.
    pub fn new(config: &Config, plan: &Plan) -> Identity {
        let listener = |listener: &ListenerPlan| ListenerIdentity {
            label: listener.label.clone(),
            key: listener.key(),
        };
        Identity {
            listeners: plan.listeners.iter().map(listener).collect(),
            routes: config
                .routes
                .iter()
                .map(|route| RouteIdentity {
                    label: route.label.clone(),
                    text: route.text.clone(),
                })
                .collect(),
            handlers: config.handlers.iter().map(HandlerIdentity::new).collect(),
        }
    }

    /// The number of a handler's upstream.
    pub fn upstream(&self, handler: usize, place: usize) -> usize {
        self.handlers[..handler]
            .iter()
            .map(|handler| handler.upstreams.len())
            .sum::<usize>()
            + place
    }

    /// How many upstreams there are.
    pub fn upstreams(&self) -> usize {
        self.upstream(self.handlers.len(), 0)
    }
}

impl HandlerIdentity {
    fn new(handler: &NamedHandler) -> HandlerIdentity {
        HandlerIdentity {
            name: handler.name.clone(),
            kind: handler.kind.name.to_owned(),
            text: handler.contents(),
            upstreams: handler.spec.upstreams().iter().map(way).collect(),
            has_sessions: handler.spec.has_sessions(),
            is_retired: handler.is_retired,
        }
    }
}

/// An upstream with all that a socket to it depends on.
fn way(upstream: &Upstream) -> String {
    let Egress {
        ttl,
        dscp,
        from,
        interface,
        loop_back,
    } = &upstream.egress;
    // Another version of the program may have written it, so the text stays as it began.
    format!(
        "{upstream} Leave {{ ttl: {ttl:?}, dscp: {dscp:?}, from: {from:?}, interface: {interface:?}, \
         loop_back: {loop_back:?} }}"
    )
}

impl ListenerPlan {
    /// What makes a socket fit for it.
    pub fn key(&self) -> ListenerKey {
        let group = match &self.role {
            Role::Group {
                interface, sources, ..
            } => Some((*interface, sources.clone())),
            _ => None,
        };
        ListenerKey {
            address: self.address,
            group,
            is_spread: self.role.is_spread(),
        }
    }
}
