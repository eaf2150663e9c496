//! The configurations of the daemon, one after the other. Each differs from the one before in one setting.

use std::net::SocketAddr;

/// The addresses of all sockets.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// The listener of datagrams that are forwarded without sessions.
    pub one_way: SocketAddr,
    /// The listener of datagrams that are forwarded with sessions.
    pub sessions: SocketAddr,
    /// The listener that is added and removed.
    pub extra: SocketAddr,
    /// The upstream of the soak that does not reply.
    pub receiver: SocketAddr,
    /// The upstream of the soak, which sends replies.
    pub upstream: SocketAddr,
}

/// One configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Number of worker threads.
    pub workers: usize,
    /// TTL of datagrams that are forwarded without sessions.
    pub ttl: u8,
    /// Time in hours for which a session may be idle.
    pub idle_hours: u32,
    /// Whether the third listener exists.
    pub has_extra: bool,
}

/// The changes from one configuration to the next, repeated: workers removed, a handler changed, a listener added,
/// workers added, the handler with sessions changed, the listener removed, the first handler changed back.
pub const VARIANTS: [Variant; 7] = [
    Variant {
        workers: 2,
        ttl: 64,
        idle_hours: 1,
        has_extra: false,
    },
    Variant {
        workers: 1,
        ttl: 64,
        idle_hours: 1,
        has_extra: false,
    },
    Variant {
        workers: 1,
        ttl: 63,
        idle_hours: 1,
        has_extra: false,
    },
    Variant {
        workers: 1,
        ttl: 63,
        idle_hours: 1,
        has_extra: true,
    },
    Variant {
        workers: 2,
        ttl: 63,
        idle_hours: 1,
        has_extra: true,
    },
    Variant {
        workers: 2,
        ttl: 63,
        idle_hours: 2,
        has_extra: true,
    },
    Variant {
        workers: 2,
        ttl: 63,
        idle_hours: 2,
        has_extra: false,
    },
];

impl Variant {
    /// Returns the text of the configuration.
    pub fn text(&self, places: &Places, receive_buffer: &str) -> String {
        let Variant {
            workers,
            ttl,
            idle_hours,
            has_extra,
        } = self;
        let Places {
            one_way,
            sessions,
            extra,
            receiver,
            upstream,
        } = places;
        let mut text = format!(
            "[daemon]\nworkers = {workers}\nreceive_buffer = \"{receive_buffer}\"\n\n\
             [[route]]\ndestination = \"{one_way}\"\nhandler = \"one_way\"\n\n\
             [[route]]\ndestination = \"{sessions}\"\nhandler = \"sessions\"\n\n\
             [handler.one_way]\nkind = \"forward\"\nreplies = false\nttl = {ttl}\nupstreams = [\"{receiver}\"]\n\n\
             [handler.sessions]\nkind = \"forward\"\nsession_idle = \"{idle_hours}h\"\nupstreams = [\"{upstream}\"]\n"
        );
        if *has_extra {
            text += &format!(
                "\n[[route]]\nname = \"extra\"\ndestination = \"{extra}\"\nhandler = \"one_way\"\n"
            );
        }
        text
    }
}
