//! The upstreams as the workers need them: the address, the socket options, and the limit of source ports.

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
use crate::plan::upstreams::PlannedUpstream;
use crate::worker::upstream_sockets::UpstreamTarget;

/// The number of local ports to assume if the setting cannot be read: the kernel's default of 32768 to 60999
/// (ip-sysctl).
const PORTS_DEFAULT: u32 = 28_232;
/// The number of open files that are reserved for purposes other than sessions.
const FILES_LEFT: u64 = 512;

/// Returns the targets of all upstreams, by number.
pub fn of(config: &Config, plan: &Plan) -> Vec<UpstreamTarget> {
    let ports = ports_max();
    // A source port is used on one local address, or on all of them if the kernel chooses the address.
    let mut budgets: HashMap<Option<IpAddr>, Arc<Limit>> = HashMap::new();
    let target = |planned: &PlannedUpstream| {
        let source = source(planned);
        let budget = budgets
            .entry(source.map(|source| source.ip()))
            .or_insert_with(|| Arc::new(Limit::new(ports)));
        let egress = &planned.upstream.egress;
        let options = UpstreamSocketOptions {
            send_buffer: config.daemon.send_buffer,
            receives: false,
            ttl: egress.ttl,
            dscp: egress.dscp,
            source,
            interface: planned.interface,
            loop_back: egress.loop_back,
        };
        let address = planned.address.as_ref().ok().copied();
        let keeps_source = egress.from == SendFrom::Keep;
        UpstreamTarget {
            handler: planned.handler,
            address,
            options,
            keeps_source,
            budget: Arc::clone(budget),
        }
    };
    plan.upstreams
        .iter()
        .map(|(_, planned)| planned)
        .map(target)
        .collect()
}

fn source(planned: &PlannedUpstream) -> Option<SocketAddr> {
    match planned.upstream.egress.from {
        SendFrom::Address(address) => Some(address),
        SendFrom::Own | SendFrom::Keep => None,
    }
}

/// Returns the number of source ports that sessions may use of one local address. It is seven eighths of the local
/// ports, because other programs need some too. The limit of open files bounds it as well.
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
