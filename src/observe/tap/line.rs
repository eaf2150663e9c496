//! The lines of a tap: one JSON object for each datagram, and occasionally one with counts. `docs/tap.md` documents
//! each key.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dispatch::tap::{Direction, View};
use crate::dispatch::verdict::Verdict;
use crate::handlers::escape::{json_base64, json_string};

/// One line: a datagram, or the counts so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TapLine {
    /// A tapped datagram.
    Datagram(Box<TappedDatagram>),
    /// The counts of datagrams so far.
    Count(TapCount),
}

/// One datagram and its verdicts. `docs/tap.md` documents each key. Keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "internals",
    expect(missing_docs, reason = "docs/tap.md describes the keys")
)]
pub struct TappedDatagram {
    pub time: String,
    pub time_ns: u64,
    pub direction: String,
    pub src: Option<SocketAddr>,
    pub dst: Option<SocketAddr>,
    pub interface: Option<String>,
    pub ttl: Option<u8>,
    pub listener: Option<String>,
    pub route: Option<String>,
    pub verdict: String,
    pub handlers: Vec<HandlerVerdict>,
    pub upstream: Option<String>,
    pub length: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    pub payload_base64: String,
}

impl TappedDatagram {
    /// Returns whether an upstream sent the datagram.
    pub fn is_reply(&self) -> bool {
        matches!(self.direction.as_str(), "reply" | "answer")
    }
}

/// The verdict of one handler on a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerVerdict {
    /// The name of the handler.
    pub handler: String,
    /// `handled`, or the reason for which the handler dropped the datagram.
    pub verdict: String,
}

/// Counts of datagrams so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapCount {
    /// Datagrams that matched the filter.
    pub matched: u64,
    /// Matching datagrams that were shown.
    pub shown: u64,
    /// Matching datagrams that were missed, because the reader was too slow or the allowance of a turn was exhausted.
    pub missed: u64,
    /// Why this is the last line: `limit` or `stopped`.
    pub end: Option<String>,
}

/// Returns the label of a verdict.
fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Handled => "handled",
        Verdict::Dropped(reason) => reason.label(),
    }
}

/// Writes a datagram as one line of JSON that parses as a [`TappedDatagram`]. No such value is built, since there may
/// be many datagrams.
pub(crate) fn write_datagram(line: &mut Vec<u8>, view: &View<'_>) -> io::Result<()> {
    let View {
        record,
        names,
        payload,
        verdicts,
    } = view;
    write_metadata(line, view)?;
    optional(
        line,
        "listener",
        record
            .listener
            .and_then(|id| names.listeners.get(id.index())),
    )?;
    optional(
        line,
        "route",
        record.route.and_then(|id| names.routes.get(id.0 as usize)),
    )?;
    write!(
        line,
        r#","verdict":"{}","handlers":["#,
        label(view.verdict())
    )?;
    for (place, (handler, verdict)) in verdicts.iter().enumerate() {
        line.extend_from_slice(if place == 0 { b"" } else { b"," });
        let handler = names.handlers.get(handler.index());
        write_verdict(line, handler.map_or("", String::as_str), *verdict)?;
    }
    line.push(b']');
    optional(
        line,
        "upstream",
        record
            .upstream
            .and_then(|id| names.upstreams.get(id.index())),
    )?;
    write!(line, r#","length":{}"#, record.len)?;
    if let Ok(text) = std::str::from_utf8(payload) {
        line.extend_from_slice(br#","payload":"#);
        json_string(line, text)?;
    }
    line.extend_from_slice(br#","payload_base64":"#);
    json_base64(line, payload);
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// Writes when and how the datagram arrived, without the closing brace.
fn write_metadata(line: &mut Vec<u8>, view: &View<'_>) -> io::Result<()> {
    let View { record, names, .. } = view;
    let time = UNIX_EPOCH + Duration::from_nanos(record.time_ns);
    let direction = match record.direction {
        Direction::Request => "request",
        Direction::Reply => "reply",
    };
    write!(
        line,
        r#"{{"time":"{}","time_ns":{}"#,
        humantime::format_rfc3339_nanos(time),
        record.time_ns
    )?;
    write!(line, r#","direction":"{direction}""#)?;
    match &record.ends {
        Some(ends) => write!(line, r#","src":"{}","dst":"{}""#, ends.src, ends.dst)?,
        None => write!(line, r#","src":null,"dst":null"#)?,
    }
    let interface = record
        .ends
        .and_then(|ends| names.interfaces.get(&ends.interface));
    optional(line, "interface", interface)?;
    match record.ends.and_then(|ends| ends.ttl) {
        Some(ttl) => write!(line, r#","ttl":{ttl}"#),
        None => write!(line, r#","ttl":null"#),
    }
}

/// Writes the verdict of one handler as a JSON object.
fn write_verdict(line: &mut Vec<u8>, handler: &str, verdict: Verdict) -> io::Result<()> {
    line.extend_from_slice(br#"{"handler":"#);
    json_string(line, handler)?;
    write!(line, r#","verdict":"{}"}}"#, label(verdict))
}

fn optional(line: &mut Vec<u8>, key: &str, value: Option<&String>) -> io::Result<()> {
    write!(line, r#","{key}":"#)?;
    match value {
        Some(value) => json_string(line, value),
        None => line.write_all(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::datagram::{Envelope, Region, Span, Train};
    use crate::dispatch::dispatcher::{
        Claim, Dispatcher, DispatcherParts, ListenerRouting, Lookup,
    };
    use crate::dispatch::handler::{Batch, Context, Handler, HandlerId, Names, NoSockets};
    use crate::dispatch::id::{ListenerId, LocalListener, RouteId};
    use crate::dispatch::reply_policy::ReplyFilter;
    use crate::dispatch::tap::{Tap, TapId};
    use crate::dispatch::verdict::DropReason;

    /// A handler that drops empty datagrams.
    struct Picky;

    impl Handler for Picky {
        fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
            batch.for_each(cx, |datagram, _| {
                if datagram.payload.is_empty() {
                    Verdict::Dropped(DropReason::Discarded)
                } else {
                    Verdict::Handled
                }
            });
        }
    }

    /// A line of JSON parses back into what a real dispatcher did, for any payload and names, and is safe to print on a
    /// terminal.
    #[test]
    fn lines_read_back() {
        let handlers: Vec<Box<dyn Handler>> = vec![Box::new(Picky)];
        let routings = vec![ListenerRouting {
            id: ListenerId::new(0),
            lookup: Lookup::Fixed(RouteId(0)),
            claim: Claim::All,
        }];
        let names = Names {
            routes: vec!["\"route\"".to_owned()],
            listeners: vec!["192.0.2.9:53".to_owned()],
            handlers: vec!["picky".to_owned()],
            interfaces: [(7, "eth0".to_owned())].into(),
            ..Names::default()
        };
        let routes = vec![vec![HandlerId(0)]];
        let mut dispatcher = Dispatcher::new(DispatcherParts {
            listeners: routings,
            routes,
            handlers,
            reply_filter: Arc::new(ReplyFilter::default()),
            names: Arc::new(names),
            listener_total: 1,
            upstream_total: 0,
        });
        let (reader, pages) = unbounded();
        let tap = Tap::new(TapId(1), Arc::default(), 65_535, reader, Arc::default());
        dispatcher.taps().add(tap);
        let arena = b"a\x1b\n\"\xc2\x9b\xff";
        let dst: SocketAddr = "192.0.2.9:53".parse().unwrap();
        let src: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        let time_ns = Some(1_000_000_000_000_000_001);
        let envelope = Envelope {
            src,
            dst,
            local: dst,
            interface: 7,
            ttl: Some(64),
            time_ns,
        };
        let train = |len| Train {
            envelope,
            span: Span {
                region: Region::Arena,
                offset: 0,
                len,
            },
            segment: 0,
        };
        dispatcher.taps().begin_turn(5);
        let trains = [train(6), train(7), train(0)];
        dispatcher.dispatch(
            LocalListener::new(0),
            &Batch::new(&trains, arena),
            &mut NoSockets,
        );
        assert!(dispatcher.end_turn());
        let mut lines = Vec::new();
        pages.try_iter().for_each(|page| {
            page.views()
                .for_each(|view| write_datagram(&mut lines, &view).unwrap());
        });
        let text = String::from_utf8(lines).unwrap();
        assert!(
            text.chars()
                .all(|character| character == '\n' || !character.is_control()),
            "{text}"
        );
        let read = |line: &str| match serde_json::from_str(line).unwrap() {
            TapLine::Datagram(datagram) => *datagram,
            TapLine::Count(count) => panic!("a datagram, not {count:?}"),
        };
        let datagrams: Vec<TappedDatagram> = text.lines().map(read).collect();
        let verdict_of = |verdict: &str| HandlerVerdict {
            handler: "picky".to_owned(),
            verdict: verdict.to_owned(),
        };
        let first = TappedDatagram {
            time: "2001-09-09T01:46:40.000000001Z".to_owned(),
            time_ns: 1_000_000_000_000_000_001,
            direction: "request".to_owned(),
            src: Some(src),
            dst: Some(dst),
            interface: Some("eth0".to_owned()),
            ttl: Some(64),
            listener: Some("192.0.2.9:53".to_owned()),
            route: Some("\"route\"".to_owned()),
            verdict: "handled".to_owned(),
            handlers: vec![verdict_of("handled")],
            upstream: None,
            length: 6,
            payload: Some("a\u{1b}\n\"\u{9b}".to_owned()),
            payload_base64: "YRsKIsKb".to_owned(),
        };
        assert_eq!(datagrams[0], first);
        let second = (
            datagrams[1].length,
            &datagrams[1].payload,
            datagrams[1].payload_base64.as_str(),
        );
        assert_eq!(second, (7, &None, "YRsKIsKb/w=="));
        let third = (datagrams[2].verdict.as_str(), &datagrams[2].handlers);
        assert_eq!(third, ("discarded", &vec![verdict_of("discarded")]));
    }
}
