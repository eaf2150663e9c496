//! The identity of a configuration on this machine, which consists of names alone. A new configuration is compared
//! with it. It also gives a meaning to the numbers in a handover, even in another process.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::upstream::{Egress, Upstream};
use crate::config::{Config, NamedHandler};
use crate::plan::{ListenerPlan, Plan, Role};

/// All rows of a configuration, each list in the order of the row numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The listeners, by number.
    pub listeners: Vec<ListenerIdentity>,
    /// The routes, by number.
    pub routes: Vec<RouteIdentity>,
    /// The handlers, by number.
    pub handlers: Vec<HandlerIdentity>,
}

/// The identity of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerIdentity {
    /// The label of the listener in the ledger.
    pub label: String,
    /// The properties that a socket must have to serve the listener.
    pub key: ListenerKey,
}

/// The properties that a socket must have to serve a listener. They cannot be changed once the socket is bound and
/// has joined its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListenerKey {
    /// The address that the socket is bound to.
    pub address: SocketAddr,
    /// For a group: the index of the interface on which it is joined, and the sources; no source means any.
    pub group: Option<(u32, Vec<IpAddr>)>,
    /// Whether several workers may have a socket.
    pub is_spread: bool,
}

/// The identity of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteIdentity {
    /// The label of the route in the ledger.
    pub label: String,
    /// The canonical text of the route's table.
    pub text: String,
}

/// The identity of a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerIdentity {
    /// The name of the handler in the file.
    pub name: String,
    /// The name of the handler's kind.
    pub kind: String,
    /// The canonical text of the handler's table, and a hash of the data that was read from other files.
    pub text: String,
    /// The upstreams, each with every property of the datagrams sent to it.
    pub upstreams: Vec<String>,
    /// Whether the handler keeps sessions with clients for replies.
    pub has_sessions: bool,
    /// Whether the handler only serves sessions that remain from an older configuration.
    pub is_retired: bool,
}

impl Identity {
    /// Returns the identity of a configuration and its plan.
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

    /// Returns the number of the upstream at a place of a handler.
    ///
    /// # Panics
    ///
    /// Panics if `handler` is not the number of a handler.
    pub fn upstream(&self, handler: usize, place: usize) -> usize {
        self.handlers[..handler]
            .iter()
            .map(|handler| handler.upstreams.len())
            .sum::<usize>()
            + place
    }

    /// Returns the number of upstreams of all handlers.
    pub fn upstreams(&self) -> usize {
        self.upstream(self.handlers.len(), 0)
    }
}

impl HandlerIdentity {
    /// Returns the identity of a handler.
    pub fn new(handler: &NamedHandler) -> HandlerIdentity {
        HandlerIdentity {
            name: handler.name.clone(),
            kind: handler.kind.name.to_owned(),
            text: handler.contents(),
            upstreams: handler.spec.upstreams().iter().map(upstream_text).collect(),
            has_sessions: handler.spec.has_sessions(),
            is_retired: handler.is_retired,
        }
    }
}

/// Returns the text of an upstream with every property that a socket to it depends on.
fn upstream_text(upstream: &Upstream) -> String {
    let Egress {
        ttl,
        dscp,
        from,
        interface,
        loop_back,
    } = &upstream.egress;
    // The text must not change: another version of the program may compare its own with it.
    format!(
        "{upstream} Leave {{ ttl: {ttl:?}, dscp: {dscp:?}, from: {from:?}, interface: {interface:?}, \
         loop_back: {loop_back:?} }}"
    )
}

impl ListenerPlan {
    /// Returns the properties that a socket must have to serve this listener.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::{SendFrom, UpstreamHost};

    /// Processes of all versions write the same text for the same upstream. If it changed, a takeover between two versions
    /// would end every session.
    #[test]
    fn the_text_of_an_upstream_stays() {
        let mut upstream = Upstream {
            host: UpstreamHost::Address(([10, 0, 0, 1], 53).into()),
            port: 53,
            at: 0..0,
            egress: Egress::default(),
        };
        assert_eq!(
            upstream_text(&upstream),
            "10.0.0.1:53 Leave { ttl: None, dscp: None, from: Own, interface: None, loop_back: true }"
        );
        upstream.egress = Egress {
            ttl: Some(9),
            dscp: Some(46),
            from: SendFrom::Address(([10, 0, 0, 2], 0).into()),
            interface: Some("eth0".to_owned()),
            loop_back: false,
        };
        assert_eq!(
            upstream_text(&upstream),
            "10.0.0.1:53 Leave { ttl: Some(9), dscp: Some(46), from: Address(10.0.0.2:0), \
             interface: Some(\"eth0\"), loop_back: false }"
        );
    }
}
