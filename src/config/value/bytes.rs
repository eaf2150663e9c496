//! A parser for bytes that text cannot hold, written as hex digits.

use super::super::diagnostics::Mistake;
use super::{Value, string};

/// Reads pairs of hex digits, between which white space is skipped: `"00ff10"`, `"00 ff 10"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text or not pairs of hex digits.
pub fn hex(value: Value<'_>) -> Result<Vec<u8>, Mistake> {
    let text = string(value)?;
    let digits: Vec<char> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect();
    let wrong = || {
        Mistake::new("not pairs of hex digits")
            .hint("write them as in \"00ff10\"; white space is ignored")
    };
    if !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pair =
        |pair: &[char]| u8::try_from(pair[0].to_digit(16)? * 16 + pair[1].to_digit(16)?).ok();
    digits
        .chunks_exact(2)
        .map(|digits| pair(digits).ok_or_else(wrong))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{read, refusal};
    use super::*;

    /// Pairs of digits are read, white space between them is skipped, and everything else is rejected.
    #[test]
    fn hex_digits() {
        assert_eq!(read("\"\"", hex), Ok(Vec::new()));
        assert_eq!(read("\"00 fF\\n10\"", hex), Ok(vec![0, 255, 16]));
        for text in ["\"0\"", "\"0g\"", "\"0x00\"", "\"é0\"", "\"０0\""] {
            assert!(
                refusal(text, hex).contains("not pairs of hex digits"),
                "{text}"
            );
        }
        assert!(refusal("10", hex).contains("expected text"));
    }
}
