//! Longest-prefix lookup in flat sorted ranges: prefixes are nested or apart, so the address line falls into ranges that
//! each belong to exactly one most specific prefix. A lookup is one binary search over plain integers.

/// An address as an ordered number.
pub trait Key: Copy + Ord {
    /// The lowest address.
    const MIN: Self;
    /// The next address; `None` after the last.
    fn next(self) -> Option<Self>;
}

impl Key for u32 {
    const MIN: u32 = 0;
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Key for u128 {
    const MIN: u128 = 0;
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// Marks a range that no prefix covers.
pub const NOBODY: u32 = u32::MAX;

/// Which of a set of nested intervals is the innermost around a key.
#[derive(Debug, Clone)]
pub struct Ranges<K> {
    /// First key of each range, ascending; the first is `K::MIN`.
    starts: Vec<K>,
    /// The interval that owns the range, or [`NOBODY`].
    owners: Vec<u32>,
}

impl<K: Key> Ranges<K> {
    /// Builds from `(first, last, owner)` intervals that are nested or disjoint, each at most once. Also returns each
    /// interval's parent, the next larger one around it, as `(owner, parent owner)`.
    pub fn build(mut intervals: Vec<(K, K, u32)>) -> (Ranges<K>, Vec<(u32, u32)>) {
        intervals.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut ranges = Ranges { starts: vec![K::MIN], owners: vec![NOBODY] };
        let mut parents = Vec::with_capacity(intervals.len());
        let mut open: Vec<(K, u32)> = Vec::new();
        for (first, last, owner) in intervals {
            ranges.close_until(&mut open, Some(first));
            parents.push((owner, open.last().map_or(NOBODY, |top| top.1)));
            ranges.start(first, owner);
            open.push((last, owner));
        }
        ranges.close_until(&mut open, None);
        (ranges, parents)
    }

    /// Ends every open interval that ends before `next`: the range behind it belongs to the one around it.
    fn close_until(&mut self, open: &mut Vec<(K, u32)>, next: Option<K>) {
        while let Some(&(last, _)) = open.last() {
            if next.is_some_and(|next| last >= next) {
                return;
            }
            open.pop();
            if let Some(after) = last.next() {
                self.start(after, open.last().map_or(NOBODY, |top| top.1));
            }
        }
    }

    /// From `first` on, `owner` owns; replaces a range that would be empty.
    fn start(&mut self, first: K, owner: u32) {
        if self.starts.last() == Some(&first) {
            self.starts.pop();
            self.owners.pop();
        }
        self.starts.push(first);
        self.owners.push(owner);
    }

    /// Whether one interval, or none, owns every key.
    pub fn is_single(&self) -> bool {
        self.owners.len() == 1
    }

    /// The innermost interval around `key`, or [`NOBODY`].
    pub fn find(&self, key: K) -> u32 {
        let after = self.starts.partition_point(|start| *start <= key);
        // The first start is K::MIN, so at least one start is not above any key.
        self.owners[after - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nested, adjacent and touching-the-end intervals all find their innermost owner.
    #[test]
    fn innermost_interval_wins() {
        let (ranges, parents) = Ranges::<u32>::build(vec![
            (0, u32::MAX, 0),
            (10, 19, 1),
            (12, 13, 2),
            (20, 29, 3),
            (u32::MAX, u32::MAX, 4),
        ]);
        for (key, owner) in
            [(0, 0), (9, 0), (10, 1), (12, 2), (13, 2), (14, 1), (19, 1), (20, 3), (30, 0), (u32::MAX, 4)]
        {
            assert_eq!(ranges.find(key), owner, "key {key}");
        }
        assert!(parents.contains(&(2, 1)) && parents.contains(&(1, 0)) && parents.contains(&(0, NOBODY)));
    }

    /// An empty table owns nothing.
    #[test]
    fn nothing_owns_nothing() {
        assert_eq!(Ranges::<u128>::build(Vec::new()).0.find(7), NOBODY);
    }
}
