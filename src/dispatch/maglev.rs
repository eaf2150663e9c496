//! Consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, section 3.4). Each member owns an equal share of a
//! table. The table is filled from permutations that depend on the members' names alone. Machines with the same names
//! pick the same member for the same key. The loss of a member moves few keys other than its own.

use crate::number;

/// The number of places in the table: a prime well above 100 times the number of members. Shares therefore differ by
/// less than 1 %.
const PLACES: usize = 65_537;

/// The lookup table: the member at each place.
#[derive(Debug, Clone, Default)]
pub struct Maglev(Vec<u16>);

impl Maglev {
    /// Fills the table from names and weights (at least 1). The order of the names does not change the result.
    pub fn new(members: &[(String, u32)]) -> Maglev {
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|&member| &members[member].0);
        let mut walkers: Vec<Walker> = order
            .into_iter()
            .map(|member| Walker::new(member, &members[member]))
            .collect();
        let heaviest = walkers
            .iter()
            .map(|walker| walker.weight)
            .max()
            .unwrap_or(1);
        let mut table = vec![u16::MAX; PLACES];
        let mut filled = 0;
        while filled < PLACES && !walkers.is_empty() {
            for walker in &mut walkers {
                // The heaviest member takes a place in each round. The others do so in proportion to their weight.
                walker.earned += walker.weight;
                if walker.earned < heaviest {
                    continue;
                }
                walker.earned -= heaviest;
                walker.take(&mut table);
                filled += 1;
                if filled == PLACES {
                    break;
                }
            }
        }
        Maglev(table)
    }

    /// Returns the member for a key. Without members, it is no member's number (65,535).
    ///
    /// # Panics
    ///
    /// Panics if the table is the default one, which has no places.
    pub fn pick(&self, key: u64) -> usize {
        usize::from(self.0[number::to_usize(key % PLACES as u64)])
    }
}

/// The progress of a member through the places of the table.
struct Walker {
    member: u16,
    place: u64,
    step: u64,
    weight: u32,
    earned: u32,
}

impl Walker {
    fn new(member: usize, (name, weight): &(String, u32)) -> Walker {
        let hash = hash_bytes(name.as_bytes());
        let places = PLACES as u64;
        let step = mix(hash) % (places - 1) + 1;
        Walker {
            member: number::to_u16(member),
            place: hash % places,
            step,
            weight: *weight,
            earned: 0,
        }
    }

    /// Takes the next free place of the member's permutation.
    fn take(&mut self, table: &mut [u16]) {
        // The number of places is prime, so each walker visits every place once.
        while table[number::to_usize(self.place)] != u16::MAX {
            self.place = (self.place + self.step) % PLACES as u64;
        }
        table[number::to_usize(self.place)] = self.member;
    }
}

/// Returns the finalizer of SplitMix64: each bit of the input changes half of the output bits on average.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Returns the FNV-1a hash of the bytes, spread by [`mix`]. It is the same on every machine and in every version.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares are even, the order of names has no effect, and the loss of a member moves few other keys.
    #[test]
    fn even_stable_and_unordered() {
        let names: Vec<(String, u32)> = (0..10).map(|n| (format!("10.0.0.{n}:53"), 1)).collect();
        let full = Maglev::new(&names);
        let reversed: Vec<(String, u32)> = names.iter().rev().cloned().collect();
        let other = Maglev::new(&reversed);
        let less = Maglev::new(&names[..9]);
        let mut counts = [0u32; 10];
        let mut moved = 0;
        for key in (0..100_000).map(mix) {
            let member = full.pick(key);
            counts[member] += 1;
            assert_eq!(reversed[other.pick(key)], names[member]);
            moved += u32::from(member != 9 && less.pick(key) != member);
        }
        assert!(
            counts.iter().all(|count| (9_000..11_000).contains(count)),
            "{counts:?}"
        );
        assert!(
            moved < 2_000,
            "{moved} of 90,000 keys of other members moved"
        );
    }

    /// With unequal weights, shares follow the weights, and the loss of any member moves few other keys.
    #[test]
    fn weights_and_a_lost_member() {
        let weights = [5, 1, 2, 1, 3, 10, 1];
        let members: Vec<(String, u32)> = (0..)
            .zip(weights)
            .map(|(n, w)| (format!("10.0.0.{n}:53"), w))
            .collect();
        let full = Maglev::new(&members);
        let sum: u32 = weights.iter().sum();
        let mut counts = [0_u32; 7];
        (0..100_000).for_each(|key| counts[full.pick(mix(key))] += 1);
        for (count, weight) in counts.iter().zip(weights) {
            assert!(count.abs_diff(100_000 * weight / sum) < 1_000, "{counts:?}");
        }
        for (lost, weight) in weights.iter().enumerate() {
            let rest: Vec<(String, u32)> = (0..members.len())
                .filter(|at| *at != lost)
                .map(|at| members[at].clone())
                .collect();
            let less = Maglev::new(&rest);
            let others = (0..100_000).map(mix).filter(|key| full.pick(*key) != lost);
            let (kept, moved): (Vec<u64>, Vec<u64>) =
                others.partition(|key| rest[less.pick(*key)].0 == members[full.pick(*key)].0);
            let share = moved.len() as f64 / (kept.len() + moved.len()) as f64;
            assert!(
                share < 0.02,
                "without {lost} of weight {weight}: {share} of the others' keys moved"
            );
        }
    }
}
