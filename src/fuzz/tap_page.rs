//! Pages of a tap: copies of datagrams with their verdicts, as lines.

use std::sync::Arc;

use crossbeam_channel::unbounded;

use super::input::Input;
use super::stage::{SocketNumbers, dispatcher, local};
use crate::datagram::{Envelope, Region, Span, Train};
use crate::dispatch::handler::Batch;
use crate::dispatch::id::LocalListener;
use crate::dispatch::tap::{Tap, TapCounts, TapId};
use crate::number;
use crate::observe::tap::{TapLine, TappedDatagram, write_datagram};

const CONFIG: &str = r#"
[[route]]
destination = "192.0.2.9:53"
handler = ["echo", "drop"]
"#;
/// The most runs of datagrams in a turn.
const TRAINS_MAX: usize = 24;

/// Checks the taps. Datagrams pass a dispatcher with two taps, in turns. Each datagram is copied or counted as missed.
/// The line of each copy is JSON without control characters and contains the payload that was sent. In the end all
/// pages are freed.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut dispatcher, names) = dispatcher(CONFIG, &mut SocketNumbers::default());
    let (reader, pages) = unbounded();
    let snap = usize::from(input.number16());
    let counts: [Arc<TapCounts>; 2] = Default::default();
    for (id, counts) in counts.iter().enumerate() {
        let tap = Tap::new(
            TapId(id as u64),
            Arc::default(),
            snap,
            reader.clone(),
            Arc::clone(counts),
        );
        dispatcher.taps().add(tap);
    }
    let (mut sent, mut copied) = (0, 0);
    while !input.is_empty() {
        let (trains, arena) = turn(&mut input);
        sent += trains
            .iter()
            .map(|train| u64::from(train.datagrams()))
            .sum::<u64>();
        dispatcher.taps().begin_turn(input.number64());
        let batch = Batch::new(&trains, &arena);
        dispatcher.dispatch(LocalListener::new(0), &batch, &mut SocketNumbers::default());
        dispatcher.sending().0.clear();
        dispatcher.end_turn();
        if input.flag() {
            copied += read(&pages, snap);
        }
    }
    dispatcher.end();
    copied += read(&pages, snap);
    let (matched, missed) = (counts[0].get(), counts[1].get());
    assert_eq!(
        (matched.0, missed.0),
        (sent, sent),
        "both taps match everything"
    );
    assert_eq!(
        copied,
        matched.0 - matched.1 + missed.0 - missed.1,
        "copied or missed"
    );
    drop((dispatcher, reader, pages));
    assert_eq!(names.strong_count(), 0, "every page is freed");
}

/// Returns the datagrams of one turn, and their bytes.
fn turn(input: &mut Input<'_>) -> (Vec<Train>, Vec<u8>) {
    let (mut trains, mut arena) = (Vec::new(), Vec::new());
    for _ in 0..usize::from(input.byte()) % TRAINS_MAX {
        let src = input.socket_address();
        let envelope = Envelope {
            src,
            dst: local(),
            local: local(),
            interface: u32::from(input.byte()),
            ttl: input.option(Input::byte),
            time_ns: input.option(Input::number64),
        };
        let len = usize::from(input.number16());
        let segment = input.number16();
        let payload = input.bytes(len);
        let offset = number::to_u32(arena.len());
        let len = number::to_u32(payload.len());
        arena.extend_from_slice(payload);
        trains.push(Train {
            envelope,
            span: Span {
                region: Region::Arena,
                offset,
                len,
            },
            segment,
        });
    }
    (trains, arena)
}

/// Reads all pages and returns the number of datagrams in them.
fn read(pages: &crossbeam_channel::Receiver<crate::dispatch::tap::TapPage>, snap: usize) -> u64 {
    let mut copied = 0;
    for page in pages.try_iter() {
        for view in page.views() {
            let mut line = Vec::new();
            write_datagram(&mut line, &view).expect("a Vec takes everything");
            let datagram = parse(&line);
            assert_eq!(datagram.length, view.record.len as usize);
            assert_eq!(view.payload.len(), datagram.length.min(snap));
            assert_eq!(datagram.src, view.record.ends.map(|ends| ends.src));
            assert_eq!(
                datagram.payload.as_deref(),
                std::str::from_utf8(view.payload).ok()
            );
            assert_eq!(base64(&datagram.payload_base64), view.payload);
            copied += 1;
        }
        page.done();
    }
    copied
}

fn parse(line: &[u8]) -> TappedDatagram {
    let text = std::str::from_utf8(line).expect("a line is UTF-8");
    let text = text.strip_suffix('\n').expect("a line has an end");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    match serde_json::from_str(text) {
        Ok(TapLine::Datagram(datagram)) => *datagram,
        other => panic!("{other:?}: {text}"),
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("base64")
}
