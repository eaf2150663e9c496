//! Consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, section 3.4): a table in which every member has the same
//! share of places, filled from permutations that depend on the members' names alone. Machines with the same names pick
//! the same member for the same key, and a lost member moves hardly anyone but its own keys.

/// Places in the table: a prime well above 100 times the members, so that shares differ by less than 1 %.
const PLACES: usize = 65_537;

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Maglev(Vec<u16>);

impl Maglev {
    /// Fills the table. The order of the names does not change who gets which key.
    pub fn new(names: &[String]) -> Maglev {
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&member| &names[member]);
        let mut walkers: Vec<(u16, u64, u64)> = order
            .into_iter()
            .map(|member| {
                let hash = hash(names[member].as_bytes());
                let places = PLACES as u64;
                (member as u16, hash % places, mix(hash) % (places - 1) + 1)
            })
            .collect();
        let mut table = vec![u16::MAX; PLACES];
        let mut filled = 0;
        while filled < PLACES && !walkers.is_empty() {
            for (member, place, step) in &mut walkers {
                // Each walker visits every place once, since the number of places is prime.
                while table[*place as usize] != u16::MAX {
                    *place = (*place + *step) % PLACES as u64;
                }
                table[*place as usize] = *member;
                filled += 1;
                if filled == PLACES {
                    break;
                }
            }
        }
        Maglev(table)
    }

    /// The member for a key.
    pub fn pick(&self, key: u64) -> usize {
        usize::from(self.0[(key % PLACES as u64) as usize])
    }
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output's.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// FNV-1a, spread by [`mix`]: the same on every machine and in every version.
fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares are even, the order of names is of no account, and a lost member moves hardly anyone else.
    #[test]
    fn even_stable_and_unordered() {
        let names: Vec<String> = (0..10).map(|n| format!("10.0.0.{n}:53")).collect();
        let full = Maglev::new(&names);
        let reversed: Vec<String> = names.iter().rev().cloned().collect();
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
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
        assert!(moved < 2_000, "{moved} of 90,000 keys of other members moved");
    }
}
