//! Decides how each listener finds the routes of its datagrams, and which facts the kernel must pass for that.
//!
//! The rows that match change only at the ends of port ranges. All ports between two such borders form a stretch and
//! share one compiled table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::kind::Needs;
use crate::config::limits::COMPILED_ROWS_MAX;
use crate::config::{Config, Problem, Problems, Route};
use crate::dispatch::dispatcher::Lookup;
use crate::dispatch::route_table::{Match, PortTable, RouteTable};
use crate::plan::{ListenerPlan, Role};

/// The data that the lookups are made from.
pub(crate) struct ListenerLookups<'a> {
    pub(crate) config: &'a Config,
    pub(crate) table: &'a RouteTable,
    pub(crate) workers: usize,
}

/// The data that all listeners of one stretch share.
struct Stretch<'a> {
    table: Arc<PortTable>,
    rows: Vec<&'a Match>,
    /// The facts that the rows of each family need together, IPv4 first.
    wildcard_needs: [Needs; 2],
}

/// The first port of each stretch, and finally the port after the last stretch. Some of the stretches may have no
/// rows.
struct Borders(Vec<u32>);

impl Borders {
    fn of(table: &RouteTable) -> Borders {
        let rows = table.matches().iter();
        let mut borders: Vec<u32> = rows
            .flat_map(|row| [u32::from(row.ports.0), u32::from(row.ports.1) + 1])
            .collect();
        borders.sort_unstable();
        borders.dedup();
        Borders(borders)
    }

    /// Returns the number of the stretch that contains a port, counted from 1; 0 for a port below all stretches.
    fn stretch(&self, port: u32) -> usize {
        self.0.partition_point(|border| *border <= port)
    }

    /// Returns the number of rows in each stretch.
    fn rows(&self, table: &RouteTable) -> Vec<usize> {
        let mut ends = vec![(0, 0); self.0.len() + 1];
        for row in table.matches() {
            ends[self.stretch(row.ports.0.into())].0 += 1;
            ends[self.stretch(u32::from(row.ports.1) + 1)].1 += 1;
        }
        let mut rows = 0;
        let in_order = ends.into_iter().map(|(begin, end)| {
            rows = rows + begin - end;
            rows
        });
        in_order.collect()
    }
}

impl ListenerLookups<'_> {
    /// Sets the lookup and the needs of each listener. Reports a problem if the compiled tables would exceed their
    /// limit.
    pub(crate) fn set_lookups(&self, listeners: &mut [ListenerPlan], problems: &mut Problems) {
        let borders = Borders::of(self.table);
        let mut stretches: BTreeMap<usize, Vec<&mut ListenerPlan>> = BTreeMap::new();
        for listener in listeners {
            let stretch = borders.stretch(listener.address.port().into());
            stretches.entry(stretch).or_default().push(listener);
        }
        let rows = borders.rows(self.table);
        if stretches
            .keys()
            .map(|stretch| rows[*stretch])
            .sum::<usize>()
            > COMPILED_ROWS_MAX
        {
            let worst = stretches.iter().max_by_key(|(stretch, _)| rows[**stretch]);
            if let Some((stretch, listeners)) = worst {
                problems.push(too_many(listeners[0], rows[*stretch], stretches.len()));
            }
            return;
        }
        let route_needs: Vec<Needs> = self
            .config
            .routes
            .iter()
            .map(|route| self.route_needs(route))
            .collect();
        for listeners in stretches.into_values() {
            let stretch = self.stretch(listeners[0].address.port(), &route_needs);
            for listener in listeners {
                self.set_lookup(listener, &stretch, &route_needs);
            }
        }
    }

    fn stretch(&self, port: u16, route_needs: &[Needs]) -> Stretch<'_> {
        let at_port = |row: &&Match| row.ports.0 <= port && port <= row.ports.1;
        let rows: Vec<&Match> = self.table.matches().iter().filter(at_port).collect();
        let wildcard_needs = [true, false].map(|is_v4| {
            let family = rows.iter().filter(|row| row.net.addr().is_ipv4() == is_v4);
            family.fold(Needs::NOTHING, |needs, row| {
                needs.or(route_needs[row.route.index()])
            })
        });
        Stretch {
            table: Arc::new(self.table.for_port(port)),
            rows,
            wildcard_needs,
        }
    }

    fn route_needs(&self, route: &Route) -> Needs {
        let specs = route
            .handlers
            .iter()
            .map(|handler| &self.config.handler(*handler).spec);
        let needs = specs.fold(Needs::NOTHING, |needs, spec| needs.or(spec.needs()));
        let expects_sources = route
            .expectations
            .iter()
            .any(|expectation| expectation.source.is_some());
        let source = needs.source || !route.sources.is_empty() || expects_sources;
        Needs {
            source,
            interface: needs.interface || route.interface.is_some(),
            ..needs
        }
    }

    fn set_lookup(
        &self,
        listener: &mut ListenerPlan,
        stretch: &Stretch<'_>,
        route_needs: &[Needs],
    ) {
        let ip = listener.address.ip();
        let wildcard = matches!(listener.role, Role::Wildcard { .. });
        let fixed = if wildcard {
            stretch.table.only_wildcard(ip.is_ipv4())
        } else {
            stretch.table.fixed(ip)
        };
        let needs = match fixed {
            Some(route) => route_needs[route.index()],
            None if wildcard => stretch.wildcard_needs[usize::from(ip.is_ipv6())],
            None => {
                let candidates = stretch.rows.iter().filter(|row| row.net.contains(&ip));
                candidates.fold(Needs::NOTHING, |needs, row| {
                    needs.or(route_needs[row.route.index()])
                })
            }
        };
        let destination = match &listener.role {
            // The address of the socket is the destination of every datagram. Passing it costs 6 to 11 % of a
            // datagram's time.
            Role::Unicast => false,
            // The destination distinguishes the copies of a datagram.
            Role::Group { .. } | Role::Broadcast | Role::Absent => true,
            Role::Wildcard { claimed } => {
                needs.destination || fixed.is_none() || self.workers > 1 || !claimed.is_empty()
            }
        };
        listener.needs = Needs {
            destination,
            ..needs
        };
        listener.lookup =
            fixed.map_or_else(|| Lookup::Table(Arc::clone(&stretch.table)), Lookup::Fixed);
    }
}

fn too_many(listener: &ListenerPlan, rows: usize, stretches: usize) -> Problem {
    let port = listener.address.port();
    let message = format!(
        "ranges of ports overlap too often: they divide the ports into {stretches} parts with more than \
         {COMPILED_ROWS_MAX} table rows in total; port {port} alone has {rows} rows"
    );
    let hint = "give ranges that overlap the same first and last port";
    Problem::error(listener.at.clone(), message).hint(hint)
}
