//! `overlap`: a socket of another program is bound to an address that overlaps one of ours. Our sockets are locked
//! against that (`net/socket.rs`). A program of the same user that sets SO_REUSEPORT can still bind, and so can one
//! that binds during a reload. Datagrams that it receives never reach the daemon and appear in none of its counters.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;

use crate::build::port_owners::{self, BoundSocket, PortOwner};
use crate::observe::snapshot::Alarm;
use crate::plan::Plan;

/// Largest number of programs named in one alarm.
const NAMED_MAX: usize = 4;

/// An address of this daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name of the listener.
    listener: String,
    address: SocketAddr,
}

/// Returns all addresses that no other program should use. Addresses that the file declares as shared are left out.
pub fn addresses(plan: &Plan) -> Vec<Address> {
    let own = plan.listeners.iter().filter(|listener| !listener.share);
    own.map(|listener| Address {
        listener: listener.label.clone(),
        address: listener.address,
    })
    .collect()
}

/// The known sockets on our ports, by inode.
#[derive(Debug, Default)]
pub struct Overlaps(HashMap<u64, Owner>);

/// The owner of a socket.
#[derive(Debug, Clone)]
enum Owner {
    /// The socket belongs to this process.
    Ours,
    /// The socket belongs to another program. If it was seen only once, it may be about to close, for example in a process
    /// that hands over to this one.
    Others {
        process: Option<(u32, String)>,
        is_old: bool,
    },
}

impl Overlaps {
    /// Checks which sockets overlap the addresses, and returns an alarm for each overlapped address.
    pub fn check(&mut self, addresses: &[Address]) -> Vec<Alarm> {
        let ports: HashSet<u16> = addresses
            .iter()
            .map(|address| address.address.port())
            .collect();
        let sockets = port_owners::sockets(|port| ports.contains(&port));
        self.update_owners(&sockets);
        let mut alarms = Vec::new();
        for Address { listener, address } in addresses {
            let others = sockets
                .iter()
                .filter(|socket| port_owners::overlaps(socket.address, *address));
            let descriptions: Vec<String> = others
                .filter_map(|socket| self.describe(socket, *address))
                .collect();
            if !descriptions.is_empty() {
                alarms.push(alarm(listener, &descriptions));
            }
        }
        alarms
    }

    /// Determines the owners of new sockets, and forgets sockets that are gone.
    fn update_owners(&mut self, sockets: &[BoundSocket]) {
        let present: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        self.0.retain(|inode, _| present.contains(inode));
        for owner in self.0.values_mut() {
            if let Owner::Others { is_old, .. } = owner {
                *is_old = true;
            }
        }
        let new: Vec<u64> = present
            .into_iter()
            .filter(|inode| !self.0.contains_key(inode))
            .collect();
        if new.is_empty() {
            return;
        }
        let own = own_sockets();
        for inode in new {
            let owner = if own.contains(&inode) {
                Owner::Ours
            } else {
                Owner::Others {
                    process: port_owners::owner(inode),
                    is_old: false,
                }
            };
            self.0.insert(inode, owner);
        }
    }

    /// Describes another program and the datagrams that it takes.
    fn describe(&self, socket: &BoundSocket, ours: SocketAddr) -> Option<String> {
        let Some(Owner::Others {
            process,
            is_old: true,
        }) = self.0.get(&socket.inode)
        else {
            return None;
        };
        let port_owner = PortOwner {
            address: socket.address,
            uid: socket.uid,
            process: process.clone(),
        };
        Some(format!("{port_owner}, {}", takes(socket, ours)))
    }
}

/// Describes the datagrams that the kernel delivers to the other socket instead of ours (compute_score in
/// net/ipv4/udp.c).
fn takes(socket: &BoundSocket, ours: SocketAddr) -> String {
    let theirs = socket.address;
    match socket.peer {
        Some(peer) => format!("takes what {peer} sends there"),
        None if theirs.ip() == ours.ip() => {
            "takes a part of what is sent there, or all of it".to_owned()
        }
        None if ours.ip().is_unspecified() => format!("takes all that is sent to {}", theirs.ip()),
        None => "takes what is sent there whenever our socket is not open".to_owned(),
    }
}

fn alarm(listener: &str, descriptions: &[String]) -> Alarm {
    let more = match descriptions.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more sockets"),
    };
    let named = descriptions[..descriptions.len().min(NAMED_MAX)].join("; ");
    Alarm {
        name: "overlap".to_owned(),
        about: listener.to_owned(),
        since: 0,
        text: format!("{listener} overlaps with a socket of another program: {named}{more}"),
        cure: "stop that program, or give it another port; if both are to share this one, set `share = true` on the route"
            .to_owned(),
    }
}

/// Returns the inodes of all sockets that this process has open.
fn own_sockets() -> HashSet<u64> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        link.to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    };
    descriptors.flatten().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sockets of this process raise no alarm, whatever they overlap with. The description of another socket names the
    /// datagrams that it takes.
    #[test]
    fn our_own_sockets_are_no_alarm() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let ours = [Address {
            listener: address.to_string(),
            address,
        }];
        let mut overlaps = Overlaps::default();
        assert_eq!(
            (overlaps.check(&ours), overlaps.check(&ours)),
            (Vec::new(), Vec::new())
        );
        assert!(!overlaps.0.is_empty(), "it was seen");

        let there = |address: &str, peer: Option<&str>| BoundSocket {
            address: address.parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            uid: 0,
            inode: 1,
        };
        let takes = |socket: &BoundSocket, ours: &str| takes(socket, ours.parse().unwrap());
        assert_eq!(
            takes(&there("127.0.0.1:9", None), "0.0.0.0:9"),
            "takes all that is sent to 127.0.0.1"
        );
        assert!(takes(&there("127.0.0.1:9", None), "127.0.0.1:9").starts_with("takes a part"));
        assert!(
            takes(&there("0.0.0.0:9", None), "127.0.0.1:9")
                .contains("whenever our socket is not open")
        );
        assert!(
            takes(&there("0.0.0.0:9", Some("192.0.2.1:1")), "127.0.0.1:9")
                .contains("what 192.0.2.1:1 sends")
        );
    }
}
