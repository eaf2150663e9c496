//! `print`: writes one line for each datagram to standard output. One datagram is one line, whatever it contains, and
//! no control character reaches a terminal.

use std::io::Write;

use super::escape;
use crate::config::kind::{BuildContext, BuildError, HandlerSpec, Kind, Needs, Setting};
use crate::config::section::Section;
use crate::datagram::Datagram;
use crate::dispatch::handler::{Batch, Context, Handler};
use crate::dispatch::sink::{LineSink, SinkCounts};
use crate::dispatch::verdict::Verdict;

/// The entry of `print` in the list of kinds.
pub const KIND: Kind = Kind {
    name: "print",
    summary: "writes one line for each datagram to standard output, with control characters escaped",
    settings: &[&FORMAT],
    example: r#"[[route]]
destination = "0.0.0.0:1234"
handler = "screen"

[handler.screen]
kind = "print"
format = "json"
"#,
    read,
};

const FORMAT: Setting<Format> = Setting::choice("format", &FORMATS)
    .default(Format::Text)
    .meaning(
        "text: time, source, destination, payload; json: keys time, src, dst, interface, route, length, payload \
         (where it is UTF-8) and payload_base64; hex: time, source, destination, payload as hex digits",
    );

const FORMATS: [(&str, Format); 3] = [
    ("text", Format::Text),
    ("json", Format::Json),
    ("hex", Format::Hex),
];

fn read(section: &mut Section<'_>) -> Option<Box<dyn HandlerSpec>> {
    let format = section.get(&FORMAT);
    Some(Box::new(Print { format }))
}

/// The form of a printed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Hex,
}

impl Format {
    /// Returns the word that the configuration file uses.
    fn word(self) -> &'static str {
        let found = FORMATS.iter().find(|(_, format)| *format == self);
        found.map_or("", |(word, _)| word)
    }
}

#[derive(Debug)]
struct Print {
    format: Format,
}

impl HandlerSpec for Print {
    fn needs(&self) -> Needs {
        Needs {
            source: true,
            destination: true,
            interface: self.format == Format::Json,
            ttl: false,
            time: true,
        }
    }

    fn describe(&self) -> String {
        format!(
            "prints one line ({}) on standard output",
            self.format.word()
        )
    }

    fn build(&self, context: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(Printer {
            format: self.format,
            sink: context.standard_output()?,
        }))
    }
}

struct Printer {
    format: Format,
    sink: LineSink,
}

impl Printer {
    fn print(&mut self, datagram: &Datagram<'_>, cx: &Context<'_>) -> Verdict {
        let format = self.format;
        let written = self.sink.line(|line| {
            // Writing to a Vec cannot fail.
            let _ = match format {
                Format::Text => write_text(line, datagram),
                Format::Json => write_json(line, datagram, cx),
                Format::Hex => write_hex(line, datagram),
            };
            line.push(b'\n');
        });
        match written {
            Ok(()) => Verdict::Handled,
            Err(reason) => Verdict::Dropped(reason),
        }
    }
}

impl Handler for Printer {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        batch.for_each(cx, |datagram, cx| self.print(datagram, cx));
    }

    fn on_turn_end(&mut self) -> bool {
        self.sink.flush_unless_last()
    }

    fn on_end(&mut self) {
        self.sink.flush();
    }

    fn sink_counts(&self) -> Option<SinkCounts> {
        Some(self.sink.sink_counts())
    }
}

/// Writes `TIME SRC > DST`, the beginning of a line in the formats `text` and `hex`.
fn write_head(line: &mut Vec<u8>, datagram: &Datagram<'_>) -> std::io::Result<()> {
    if let Some(time) = datagram.time() {
        write!(line, "{} ", humantime::format_rfc3339_micros(time))?;
    }
    write!(line, "{} > {}", datagram.src(), datagram.dst())
}

fn write_text(line: &mut Vec<u8>, datagram: &Datagram<'_>) -> std::io::Result<()> {
    write_head(line, datagram)?;
    line.push(b' ');
    escape::text(line, datagram.payload)
}

fn write_hex(line: &mut Vec<u8>, datagram: &Datagram<'_>) -> std::io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    write_head(line, datagram)?;
    line.push(b' ');
    for byte in datagram.payload {
        line.extend_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    Ok(())
}

fn write_json(
    line: &mut Vec<u8>,
    datagram: &Datagram<'_>,
    cx: &Context<'_>,
) -> std::io::Result<()> {
    let time = datagram.time().unwrap_or(std::time::UNIX_EPOCH);
    write!(
        line,
        r#"{{"time":"{}","src":"{}""#,
        humantime::format_rfc3339_micros(time),
        datagram.src()
    )?;
    write!(line, r#","dst":"{}","interface":"#, datagram.dst())?;
    match cx.interface(datagram.envelope.interface) {
        Some(name) => escape::json_string(line, name)?,
        None => line.extend_from_slice(b"null"),
    }
    line.extend_from_slice(br#","route":"#);
    escape::json_string(line, cx.route())?;
    write!(line, r#","length":{}"#, datagram.payload.len())?;
    if let Ok(text) = std::str::from_utf8(datagram.payload) {
        line.extend_from_slice(br#","payload":"#);
        escape::json_string(line, text)?;
    }
    line.extend_from_slice(br#","payload_base64":"#);
    escape::json_base64(line, datagram.payload);
    line.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostics::is_unprintable;
    use crate::datagram::{Envelope, Region, Span};
    use proptest::prelude::*;

    fn with_datagram<T>(payload: &[u8], act: impl Fn(&Datagram<'_>) -> T) -> T {
        let src = "192.0.2.1:9999".parse().unwrap();
        let dst = "[2001:db8::1]:53".parse().unwrap();
        let envelope = Envelope {
            src,
            dst,
            local: dst,
            interface: 7,
            ttl: None,
            time_ns: Some(1_000_000_000_000_001_000),
        };
        let span = Span {
            region: Region::Arena,
            offset: 0,
            len: payload.len() as u32,
        };
        act(&Datagram {
            payload,
            envelope,
            span,
        })
    }

    fn text(payload: &[u8]) -> String {
        let line = with_datagram(payload, |datagram| {
            let mut line = Vec::new();
            write_text(&mut line, datagram).unwrap();
            line
        });
        String::from_utf8(line).unwrap()
    }

    /// Terminal escapes from a hostile sender are printed as harmless text on one line.
    #[test]
    fn hostile_payloads_are_escaped() {
        let head = "2001-09-09T01:46:40.000001Z 192.0.2.1:9999 > [2001:db8::1]:53 ";
        assert_eq!(text(b"hello\n"), format!("{head}hello\\n"));
        assert_eq!(text(b"\x1b[2J\0\\"), format!("{head}\\x1b[2J\\x00\\\\"));
        assert_eq!(
            text("\u{9b}\u{2028}é".as_bytes()),
            format!("{head}\\u{{9b}}\\u{{2028}}é")
        );
        assert_eq!(text(b"a\xff\xfeb"), format!("{head}a\\xff\\xfeb"));
        assert_eq!(text(b""), head);
    }

    proptest! {
        /// A JSON string is one line without control characters, and parses to the original text.
        #[test]
        fn json_strings_survive(text: String) {
            let mut line = Vec::new();
            escape::json_string(&mut line, &text).unwrap();
            let line = String::from_utf8(line).unwrap();
            prop_assert!(!line.chars().any(is_unprintable));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }

        /// For any bytes, neither a text line nor a hex line contains a line feed.
        #[test]
        fn one_datagram_is_one_line(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!text(&payload).chars().any(is_unprintable));
            let hex = with_datagram(&payload, |datagram| {
                let mut line = Vec::new();
                write_hex(&mut line, datagram).unwrap();
                line.len()
            });
            prop_assert_eq!(hex, text(b"").len() + 2 * payload.len());
        }
    }
}
