//! Conversions between integers that are lossless because of a limit, which the types alone do not ensure.
//!
//! Each conversion is checked in builds with debug assertions, which all tests are. In a release build it costs
//! nothing. The limit stands next to its use, or next to its definition as a `const` assertion.

const _: () = assert!(
    usize::BITS == 64,
    "lengths and places have 64 bits, so a usize holds every u64"
);

/// Returns a length or place that is known to be smaller than 2³².
///
/// # Panics
/// Panics if it is larger, in builds with debug assertions.
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers name the limit, and tests check it"
)]
#[inline]
pub const fn to_u32(number: usize) -> u32 {
    debug_assert!(number <= u32::MAX as usize, "a number below 2^32");
    number as u32
}

/// Returns a length or place that is known to be smaller than 2¹⁶.
///
/// # Panics
/// Panics if it is larger, in builds with debug assertions.
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers name the limit, and tests check it"
)]
#[inline]
pub const fn to_u16(number: usize) -> u16 {
    debug_assert!(number <= u16::MAX as usize, "a number below 2^16");
    number as u16
}

/// Returns a number of 64 bits as a length or place.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a usize has 64 bits, as asserted above"
)]
#[inline]
pub const fn to_usize(number: u64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest numbers pass unchanged.
    #[test]
    fn limits_pass() {
        assert_eq!(to_u32(u32::MAX as usize), u32::MAX);
        assert_eq!(to_u16(usize::from(u16::MAX)), u16::MAX);
        assert_eq!(to_usize(u64::MAX), usize::MAX);
    }

    /// A number beyond the limit is a defect that tests show.
    #[test]
    #[should_panic(expected = "a number below 2^16")]
    fn a_broken_limit_is_shown() {
        to_u16(1 << 16);
    }
}
