//! `interface_gone`: an interface on which a group was joined, or which a route requires, no longer exists. The kernel
//! does not report this. The socket stays open and receives nothing, even if an interface of the same name appears,
//! because that one has another index.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::config::Config;
use crate::net::interfaces::{self, Interface};
use crate::observe::snapshot::Alarm;
use crate::plan::{Plan, Role};

/// A group membership or route that depends on one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The name of the listener or the route.
    about: String,
    /// Whether this is the listener of a group.
    is_group: bool,
    /// The index of the interface.
    index: u32,
    /// The name that the interface had when the configuration was applied.
    name: String,
}

/// Returns all joined groups, and all routes that name an interface.
pub fn memberships(config: &Config, plan: &Plan) -> Vec<Membership> {
    let membership = |about: &str, is_group, index| {
        let name = plan
            .names
            .interfaces
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("interface {index}"));
        Membership {
            about: about.to_owned(),
            is_group,
            index,
            name,
        }
    };
    let groups = plan
        .listeners
        .iter()
        .filter_map(|listener| match &listener.role {
            Role::Group { interface, .. } => Some(membership(&listener.label, true, *interface)),
            _ => None,
        });
    let rows = plan
        .table
        .matches()
        .iter()
        .filter(|row| !row.net.addr().is_multicast());
    let routes = rows.filter_map(|row| {
        let route = config.routes.get(row.route.index())?;
        Some(membership(&route.label, false, row.interface?))
    });
    // A link-local address is bound together with its interface.
    let bound = plan
        .listeners
        .iter()
        .filter_map(|listener| match listener.address {
            SocketAddr::V6(address) if address.scope_id() != 0 && !address.ip().is_multicast() => {
                Some(membership(&listener.label, false, address.scope_id()))
            }
            _ => None,
        });
    let routes: BTreeSet<Membership> = routes.chain(bound).collect();
    groups.chain(routes).collect()
}

/// Returns an alarm for each membership with an interface that is gone.
pub fn check(memberships: &[Membership]) -> Vec<Alarm> {
    if memberships.is_empty() {
        return Vec::new();
    }
    // If the kernel cannot list its interfaces, no alarm is raised.
    interfaces::list().map_or(Vec::new(), |here| find(memberships, &here))
}

fn find(memberships: &[Membership], here: &[Interface]) -> Vec<Alarm> {
    let is_gone = |one: &&Membership| !here.iter().any(|interface| interface.index == one.index);
    memberships
        .iter()
        .filter(is_gone)
        .map(|one| make_alarm(one, here))
        .collect()
}

fn make_alarm(one: &Membership, here: &[Interface]) -> Alarm {
    let Membership {
        about,
        is_group,
        index,
        name,
    } = one;
    let lost = if *is_group {
        format!("{about} was joined there, and no longer receives datagrams")
    } else {
        format!("{about} matches only datagrams that arrive there, so it receives none")
    };
    let (what, cure) = match here.iter().find(|interface| interface.name == *name) {
        Some(new) => (
            format!(
                "was deleted and created again: it had index {index} and has {} now",
                new.index
            ),
            "run `udispatch reload`, which uses the new one".to_owned(),
        ),
        None => (
            format!("(index {index}) no longer exists"),
            format!(
                "restore interface {name} and run `udispatch reload`; or remove the route from the file"
            ),
        ),
    };
    let text = format!("interface {name} {what}; {lost}");
    Alarm {
        name: "interface_gone".to_owned(),
        about: about.clone(),
        since: 0,
        text,
        cure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text depends on whether an interface of the same name exists. An interface that was only renamed raises no
    /// alarm.
    #[test]
    fn a_new_interface_of_the_same_name_is_another() {
        let interface = |index, name: &str| Interface {
            index,
            name: name.to_owned(),
            addresses: Vec::new(),
            broadcasts: Vec::new(),
            up: true,
        };
        let one = Membership {
            about: "239.1.2.3:5000 on a".to_owned(),
            is_group: true,
            index: 5,
            name: "a".to_owned(),
        };
        let find = |here: &[Interface]| find(std::slice::from_ref(&one), here).pop();
        assert_eq!(find(&[interface(5, "b")]), None);
        assert!(
            find(&[interface(6, "b")])
                .unwrap()
                .cure
                .starts_with("restore interface a ")
        );
        let alarm = find(&[interface(7, "a")]).unwrap();
        assert!(
            alarm.text.contains("had index 5 and has 7 now"),
            "{alarm:?}"
        );
    }
}
