//! Ports that were asked for already, so that what many routes have in common is looked at once.

use std::collections::BTreeMap;

use crate::number;

use super::PortSpan;

/// A set of ports.
#[derive(Debug, Default)]
pub struct PortSet {
    /// The last port by the first, of ranges that do not overlap.
    ranges: BTreeMap<u16, u16>,
}

impl PortSet {
    /// Adds these ports and gives those that are new, in order.
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
        // In 32 bits, where there is a port behind the last one.
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
            // They become one, so each range is walked over only until something covers it.
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
        /// A port is new once, at the first range that has it.
        #[test]
        fn each_port_is_new_once(ranges in prop::collection::vec((1_u16..40, 0_u16..12, any::<bool>()), 1..30)) {
            let mut set = PortSet::default();
            let mut model = HashSet::new();
            for (first, more, high) in ranges {
                // At the upper end of all ports too.
                let first = if high { u16::MAX - first } else { first };
                let ports = PortSpan::new(first, first.saturating_add(more)).unwrap();
                let new: Vec<u16> = set.add(ports).into_iter().flat_map(PortSpan::iter).collect();
                let expected: Vec<u16> = ports.iter().filter(|port| model.insert(*port)).collect();
                prop_assert_eq!(new, expected);
            }
        }
    }
}
