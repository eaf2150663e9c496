//! Payloads as text: one datagram is one line, whatever it contains, and no control character reaches a terminal.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::diagnostics::is_unprintable;

/// Appends bytes as text, escaped as in a Rust string. Bytes that are not UTF-8 are escaped, and so are characters that
/// would move a terminal's cursor, begin an escape sequence, change the reading direction or end the line.
///
/// # Errors
///
/// Returns no error, because writing to a `Vec` cannot fail. The `Result` comes from `write!`.
pub fn text(line: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.extend_from_slice(b"\\\\"),
                '\n' => line.extend_from_slice(b"\\n"),
                '\r' => line.extend_from_slice(b"\\r"),
                '\t' => line.extend_from_slice(b"\\t"),
                character if is_unprintable(character) && character.is_ascii() => {
                    write!(line, "\\x{:02x}", u32::from(character))?;
                }
                character if is_unprintable(character) => {
                    write!(line, "\\u{{{:x}}}", u32::from(character))?;
                }
                character => write!(line, "{character}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Appends a JSON string (RFC 8259, section 7) that is also safe on a terminal. C1 controls, DEL, line separators and
/// direction marks are escaped too, which the RFC allows but does not require.
///
/// # Errors
///
/// Returns no error, because writing to a `Vec` cannot fail. The `Result` comes from `write!`.
pub fn json_string(line: &mut Vec<u8>, text: &str) -> io::Result<()> {
    line.push(b'"');
    for character in text.chars() {
        match character {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            '\n' => line.extend_from_slice(b"\\n"),
            '\r' => line.extend_from_slice(b"\\r"),
            '\t' => line.extend_from_slice(b"\\t"),
            character if is_unprintable(character) => {
                write!(line, "\\u{:04x}", u32::from(character))?;
            }
            character => write!(line, "{character}")?,
        }
    }
    line.push(b'"');
    Ok(())
}

/// Appends the Base64 form (RFC 4648, section 4) of some bytes as a JSON string.
pub fn json_base64(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    let start = line.len();
    line.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let encoded = STANDARD
        .encode_slice(bytes, &mut line[start..])
        .expect("room for the base64 form");
    line.truncate(start + encoded);
    line.push(b'"');
}
