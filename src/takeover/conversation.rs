//! The server's connection to one client. The handshake's thread owns it first, then the supervisor's thread.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::takeover::messages::{MessageKind, Refused};
use crate::takeover::protocol::MESSAGE_TIMEOUT;
use crate::takeover::protocol::server::Peer;
use crate::takeover::wire::Wire;

/// Counts a takeover that is under way, until it is dropped.
struct UnderWay(Arc<AtomicU32>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connection to one client.
pub(super) struct ServerConversation {
    pub(super) wire: Wire,
    pub(super) peer: Peer,
    under_way: Option<UnderWay>,
}

impl ServerConversation {
    /// Takes a connection that was accepted, and returns whether it is the only one. `under_way` counts the connections.
    ///
    /// # Errors
    ///
    /// The system's, if the socket cannot be used.
    pub(super) fn new(
        stream: UnixStream,
        under_way: Arc<AtomicU32>,
    ) -> io::Result<(ServerConversation, bool)> {
        let is_alone = under_way.fetch_add(1, Ordering::Relaxed) == 0;
        let under_way = UnderWay(under_way);
        let wire = Wire::new(stream)?;
        let conversation = ServerConversation {
            peer: wire.peer()?,
            wire,
            under_way: Some(under_way),
        };
        Ok((conversation, is_alone))
    }

    /// Lets other clients take over from now on. Must be called before the failure of this one is logged, because the reader
    /// of the log may start another client at once.
    pub(super) fn allow_other_clients(&mut self) {
        self.under_way = None;
    }

    /// Logs the reason for which the server does not hand over, and sends it.
    pub(super) fn refuse(&mut self, reason: String) {
        log::warn!("takeover refused: {reason}");
        // If it cannot be sent, the client finds the connection closed.
        let _ = self.wire.send(
            MessageKind::Refused,
            &Refused { reason },
            &[],
            MESSAGE_TIMEOUT,
        );
    }
}
