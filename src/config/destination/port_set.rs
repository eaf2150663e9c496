//! A set of ports that have been requested, so that ports that many routes have in common are processed once.

use std::collections::BTreeMap;

use crate::number;

use super::PortSpan;

/// A set of ports.
#[derive(Debug, Default)]
pub struct PortSet {
    /// The last port of each range by its first port. The ranges do not overlap.
    ranges: BTreeMap<u16, u16>,
}

impl PortSet {
    /// Adds these ports and returns those that are new, in ascending order.
    pub fn add(&mut self, ports: PortSpan) -> Vec<PortSpan> {
        let PortSpan { first, last } = ports;
        let before = self
            .ranges
            .range(..=first)
            .next_back()
            .filter(|(_, end)| **end >= first);
        let from = before.map_or(first, |(start, _)| *start);
        let known: Vec<(u16, u16)> = self
            .ranges
            .range(from..=last)
            .map(|(start, end)| (*start, *end))
            .collect();
        let mut new = Vec::new();
        // The next port is kept in 32 bits, because it may be one above 65535.
        let mut next = u32::from(first);
        for &(start, end) in &known {
            if u32::from(start) > next {
                new.push(PortSpan {
                    first: number::to_u16(next as usize),
                    last: start - 1,
                });
            }
            next = u32::from(end) + 1;
        }
        if next <= u32::from(last) {
            new.push(PortSpan {
                first: number::to_u16(next as usize),
                last,
            });
        }
        if !new.is_empty() {
            // The ranges become one, so each of them is visited only until it is covered.
            for (start, _) in &known {
                self.ranges.remove(start);
            }
            self.ranges
                .insert(from, known.last().map_or(last, |(_, end)| last.max(*end)));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A port is new once, in the first range that contains it.
        #[test]
        fn each_port_is_new_once(ranges in prop::collection::vec((1_u16..40, 0_u16..12, any::<bool>()), 1..30)) {
            let mut set = PortSet::default();
            let mut model = HashSet::new();
            for (first, more, high) in ranges {
                // Ranges at the upper end of all ports are tested too.
                let first = if high { u16::MAX - first } else { first };
                let ports = PortSpan::new(first, first.saturating_add(more)).unwrap();
                let new: Vec<u16> = set.add(ports).into_iter().flat_map(PortSpan::iter).collect();
                let expected: Vec<u16> = ports.iter().filter(|port| model.insert(*port)).collect();
                prop_assert_eq!(new, expected);
            }
        }
    }
}
