//! Frames of the takeover protocol, over a real socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::input::Input;
use crate::takeover::error::WireError;
use crate::takeover::wire::{Frame, Wire};

/// The deadline of a frame. All bytes are in the socket before it is read, so the reader waits only because of a
/// defect.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest input, which a socket buffer of the default size takes at once (net.core.wmem_default is 212,992).
const BYTES_MAX: usize = 64 << 10;

/// Checks the reader of frames. The bytes that a peer sends before it closes the connection are a frame or an error, at
/// once. A received frame is the same after it is sent and received again.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(&bytes[..bytes.len().min(BYTES_MAX)]);
    let sent = input.rest();
    let (here, mut there) = UnixStream::pair().expect("a socket pair");
    there.write_all(sent).expect("the socket takes all bytes");
    there.shutdown(Shutdown::Write).expect("an open socket");
    let mut wire = Wire::new(here).expect("a wire");
    match wire.receive(DEADLINE) {
        Ok(frame) => check_frame(&frame, sent),
        Err(WireError::TimedOut) => {
            panic!("the reader waits for a peer that has closed the connection")
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_frame(frame: &Frame, sent: &[u8]) {
    assert_eq!(sent[0], frame.kind as u8);
    assert!(frame.fds.is_empty(), "descriptors that were not sent");
    let len = u64::from_le_bytes(*sent[1..].first_chunk().expect("a length"));
    let len = usize::try_from(len).expect("a length");
    let body = &sent[13..][..len];
    let Ok(value) = frame.read::<serde_json::Value>() else {
        assert!(serde_json::from_slice::<serde_json::Value>(body).is_err());
        return;
    };
    let (here, there) = UnixStream::pair().expect("a socket pair");
    Wire::new(there)
        .expect("a wire")
        .send(frame.kind, &value, &[], DEADLINE)
        .expect("sent");
    let mut raw = Vec::new();
    (&here).read_to_end(&mut raw).expect("the whole frame");
    let again: serde_json::Value = serde_json::from_slice(&raw[13..]).expect("JSON");
    assert_eq!(again, value);
    assert_eq!(
        raw[1..9],
        ((raw.len() - 13) as u64).to_le_bytes(),
        "the length in the header"
    );
}
