//! The upstreams as the workers know them: where each is, how its sockets are made, and how many source ports there may be.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::Config;
use crate::config::upstream::SendFrom;
use crate::dispatch::limit::Limit;
use crate::net::limits;
use crate::net::upstream::UpstreamSocketOptions;
use crate::plan::Plan;
use crate::plan::upstreams::Located;
use crate::worker::upstream_sockets::UpstreamTarget;

/// Ports that the kernel gives out where its setting cannot be read: its default of 32768 to 60999 (ip-sysctl).
const PORTS_DEFAULT: u32 = 28_232;
/// Files that are left for everything but sessions.
const FILES_LEFT: u64 = 512;

/// The targets of all upstreams, by number.
pub fn of(config: &Config, plan: &Plan) -> Vec<UpstreamTarget> {
    let ports = ports_max();
    // A port is taken on one local address, or on all of them where the kernel chooses.
    let mut budgets: HashMap<Option<IpAddr>, Arc<Limit>> = HashMap::new();
    let target = |located: &Located| {
        let source = source(located);
        let budget = budgets
            .entry(source.map(|source| source.ip()))
            .or_insert_with(|| Arc::new(Limit::new(ports)));
        let egress = &located.upstream.egress;
        let options = UpstreamSocketOptions {
            send_buffer: config.daemon.send_buffer,
            receives: false,
            ttl: egress.ttl,
            dscp: egress.dscp,
            source,
            interface: located.interface,
            loop_back: egress.loop_back,
        };
        let address = located.address.as_ref().ok().copied();
        let keeps_source = egress.from == SendFrom::Keep;
        UpstreamTarget {
            handler: located.handler,
            address,
            options,
            keeps_source,
            budget: Arc::clone(budget),
        }
    };
    plan.upstreams
        .iter()
        .map(|(_, located)| located)
        .map(target)
        .collect()
}

fn source(located: &Located) -> Option<SocketAddr> {
    match located.upstream.egress.from {
        SendFrom::Address(address) => Some(address),
        SendFrom::Own | SendFrom::Keep => None,
    }
}

/// Source ports that sessions may take of one local address: seven of eight, for other programs need some too, and no more
/// than there may be files.
fn ports_max() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().map(|word| word.parse::<u32>().ok());
    let ports = match (bounds.next().flatten(), bounds.next().flatten()) {
        (Some(first), Some(last)) if first <= last => last - first + 1,
        _ => PORTS_DEFAULT,
    };
    let files = limits::open_files().saturating_sub(FILES_LEFT).max(1);
    (ports / 8 * 7)
        .max(1)
        .min(u32::try_from(files).unwrap_or(u32::MAX))
}
