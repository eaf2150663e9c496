//! Longest-prefix lookup in flat sorted ranges. Prefixes are nested or disjoint, so they divide the address space
//! into ranges. The most specific prefix around a range owns it. A lookup is one binary search for IPv4, and at most
//! two for IPv6. The first is by the upper half of the address. The second is by the lower half, if ranges begin
//! within the upper one. The search compares machine words without a branch. A search over whole 128-bit numbers
//! costs twice as much, because its branches cannot be predicted.

use crate::number;

/// An address as an ordered number.
pub trait AddressKey: Copy + Ord {
    /// The machine word that the search compares.
    type Word: Copy + Ord + std::fmt::Debug;
    /// The lowest address.
    const MIN: Self;
    /// Returns the next address, or `None` after the last.
    fn next(self) -> Option<Self>;
    /// Returns the address as two words in the same order. The second is 0 if one word is enough.
    fn words(self) -> (Self::Word, Self::Word);
}

impl AddressKey for u32 {
    type Word = u32;
    const MIN: u32 = 0;
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
    fn words(self) -> (u32, u32) {
        (self, 0)
    }
}

impl AddressKey for u128 {
    type Word = u64;
    const MIN: u128 = 0;
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
    fn words(self) -> (u64, u64) {
        ((self >> 64) as u64, (self & 0xffff_ffff_ffff_ffff) as u64)
    }
}

/// Stands for no owner, in a range that no prefix covers.
pub const NONE: u32 = u32::MAX;

/// A lookup of the innermost interval around a key, in a set of nested intervals.
#[derive(Debug, Clone)]
pub struct Ranges<K: AddressKey> {
    /// The upper words of the ranges' first keys, ascending and unique. The first is that of `K::MIN`.
    heads: Vec<K::Word>,
    /// The index of the first range of each head in the two lists below, and the number of ranges as the last entry.
    blocks: Vec<u32>,
    /// The lower word of each range's first key.
    tails: Vec<K::Word>,
    /// The interval that owns each range, or [`NONE`].
    owners: Vec<u32>,
}

/// Ranges being built, as `(first key, owner)`.
struct RangesBuilder<K>(Vec<(K, u32)>);

impl<K: AddressKey> Ranges<K> {
    /// Builds the lookup from `(first, last, owner)` intervals that are nested or disjoint, each at most once. It
    /// also returns each interval's parent, the next larger one around it, as `(owner, parent owner)`.
    pub fn build(mut intervals: Vec<(K, K, u32)>) -> (Ranges<K>, Vec<(u32, u32)>) {
        intervals.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut draft = RangesBuilder(vec![(K::MIN, NONE)]);
        let mut parents = Vec::with_capacity(intervals.len());
        let mut open: Vec<(K, u32)> = Vec::new();
        for (first, last, owner) in intervals {
            draft.close_until(&mut open, Some(first));
            parents.push((owner, open.last().map_or(NONE, |top| top.1)));
            draft.start(first, owner);
            open.push((last, owner));
        }
        draft.close_until(&mut open, None);
        (draft.finish(), parents)
    }

    /// Returns whether all keys have one owner, or none has an owner.
    pub fn is_single(&self) -> bool {
        self.owners.len() == 1
    }

    /// Returns the innermost interval around `key`, or [`NONE`].
    pub fn find(&self, key: K) -> u32 {
        let (head, tail) = key.words();
        // The first range begins at K::MIN, so at least one head is not above the head of any key.
        let block = self.heads.partition_point(|start| *start <= head) - 1;
        let first = self.blocks[block] as usize;
        let end = self.blocks[block + 1] as usize;
        if self.heads[block] < head {
            return self.owners[end - 1]; // No range begins in this head: the last one before it covers the key.
        }
        let after = first + self.tails[first..end].partition_point(|start| *start <= tail);
        self.owners[after - 1]
    }
}

impl<K: AddressKey> RangesBuilder<K> {
    /// Closes every open interval that ends before `next`. The interval around it owns the range behind it.
    fn close_until(&mut self, open: &mut Vec<(K, u32)>, next: Option<K>) {
        while let Some(&(last, _)) = open.last() {
            if next.is_some_and(|next| last >= next) {
                return;
            }
            open.pop();
            if let Some(after) = last.next() {
                self.start(after, open.last().map_or(NONE, |top| top.1));
            }
        }
    }

    /// Makes `owner` the owner from `first` on, and replaces a range that would be empty.
    fn start(&mut self, first: K, owner: u32) {
        self.0.pop_if(|last| last.0 == first);
        self.0.push((first, owner));
    }

    fn finish(self) -> Ranges<K> {
        let mut heads = Vec::new();
        let mut blocks = Vec::new();
        let mut tails = Vec::new();
        let mut owners = Vec::new();
        for (first, owner) in self.0 {
            let (head, tail) = first.words();
            if heads.last() != Some(&head) {
                heads.push(head);
                blocks.push(number::to_u32(tails.len()));
            }
            tails.push(tail);
            owners.push(owner);
        }
        blocks.push(number::to_u32(tails.len()));
        Ranges {
            heads,
            blocks,
            tails,
            owners,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Intervals that are nested, adjacent or end at the last key all find their innermost owner.
    #[test]
    fn innermost_interval_wins() {
        let (ranges, parents) = Ranges::<u32>::build(vec![
            (0, u32::MAX, 0),
            (10, 19, 1),
            (12, 13, 2),
            (20, 29, 3),
            (u32::MAX, u32::MAX, 4),
        ]);
        for (key, owner) in [
            (0, 0),
            (9, 0),
            (10, 1),
            (12, 2),
            (13, 2),
            (14, 1),
            (19, 1),
            (20, 3),
            (30, 0),
            (u32::MAX, 4),
        ] {
            assert_eq!(ranges.find(key), owner, "key {key}");
        }
        assert!(
            parents.contains(&(2, 1)) && parents.contains(&(1, 0)) && parents.contains(&(0, NONE))
        );
    }

    /// A lookup without intervals finds no owner.
    #[test]
    fn without_intervals_no_key_has_an_owner() {
        assert_eq!(Ranges::<u128>::build(Vec::new()).0.find(7), NONE);
    }
}
