//! The yardstick for request and reply: the best plain forwarder with sessions that we can write by hand.
//!
//! It uses recvmmsg on the listener. A hash map finds the client's upstream socket, a connected one of its own, for
//! send(2). One epoll instance has all sockets. It calls recv once for each socket that is ready, and sends the replies
//! of a wait by one sendmmsg, or each one by a sendto. It has no timeouts, no limits and no error reports. With
//! `replies_max` a session ends with its first reply, and otherwise never. It is also the benchmark's own binary,
//! started with the words `by-hand-sessions`.
//!
//! It uses level-triggered epoll, and one recv for each wait. With edge-triggered epoll it would have to find each
//! socket empty, which is one more system call for each reply.

use crate::sys::{self, Datagrams, Epoll};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

/// Number of datagrams taken from the listener at once, of sockets found ready at once, and of replies sent at once.
const BATCH: usize = 256;
/// Length of the longest datagram in bytes.
const SLOT_BYTES: usize = 2048;
/// The number of the listener in the epoll instance. Sessions have their own numbers.
const LISTENER: u64 = u64::MAX;
/// Number of sessions for each local address, which has no more than 65,535 ports.
const SESSIONS_PER_ADDRESS: usize = 20_000;

/// How the forwarder works.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// Whether replies are sent together, by sendmmsg.
    pub(crate) batched: bool,
    /// Whether a session ends with its first reply.
    pub(crate) one_reply: bool,
}

/// Forwards from `listen` to `upstream` and back, forever.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr, habits: Habits) -> io::Result<()> {
    let listener = UdpSocket::bind(listen)?;
    sys::set_int(
        &listener,
        libc::SOL_SOCKET,
        libc::SO_RCVBUF,
        libc::c_int::MAX / 2,
    )?;
    let mut epoll = Epoll::new(BATCH)?;
    epoll.add(&listener, LISTENER)?;
    let mut sessions = Sessions {
        upstream,
        of: HashMap::default(),
        all: Vec::new(),
        free: Vec::new(),
    };
    let mut requests = Datagrams::new(BATCH, SLOT_BYTES, false);
    let mut replies = Datagrams::new(BATCH, SLOT_BYTES, false);
    loop {
        let Ok(ready) = epoll.wait() else { continue };
        let mut filled = 0;
        for event in 0..ready {
            match epoll.ready(event) {
                LISTENER => forward(&listener, &mut requests, &mut sessions, &epoll),
                number => {
                    filled +=
                        sessions.answer(number as usize, &listener, &mut replies, filled, habits);
                }
            }
        }
        let mut sent = 0;
        while sent < filled {
            // Datagrams that the kernel does not take are skipped.
            sent += replies
                .send(listener.as_raw_fd(), sent, filled)
                .unwrap_or(1);
        }
    }
}

/// A batch of requests.
fn forward(listener: &UdpSocket, requests: &mut Datagrams, sessions: &mut Sessions, epoll: &Epoll) {
    let filled = requests.receive(listener.as_raw_fd(), BATCH).unwrap_or(0);
    for slot in 0..filled {
        if let Ok(socket) = sessions.socket(requests.peer(slot), epoll) {
            let _ = socket.send(requests.bytes(slot));
        }
    }
}

/// The session of one client.
struct Session {
    socket: UdpSocket,
    client: SocketAddrV4,
}

struct Sessions {
    upstream: SocketAddr,
    of: HashMap<u64, usize, BuildHasherDefault<Mixer>>,
    all: Vec<Option<Session>>,
    free: Vec<usize>,
}

impl Sessions {
    /// Returns the client's upstream socket, which is made if it is new.
    #[inline]
    fn socket(&mut self, client: SocketAddrV4, epoll: &Epoll) -> io::Result<&UdpSocket> {
        let number = match self.of.get(&key(client)) {
            Some(&number) => number,
            None => self.open(client, epoll)?,
        };
        self.all[number]
            .as_ref()
            .map(|session| &session.socket)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    #[cold]
    fn open(&mut self, client: SocketAddrV4, epoll: &Epoll) -> io::Result<usize> {
        let number = self.free.pop().unwrap_or(self.all.len());
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None)?;
        if number >= SESSIONS_PER_ADDRESS {
            let own = Ipv4Addr::new(127, 0, 1, (number / SESSIONS_PER_ADDRESS) as u8);
            socket.bind(&SocketAddrV4::new(own, 0).into())?;
        }
        // Without a bind, connect(2) assigns a port, which saves one call.
        socket.connect(&self.upstream.into())?;
        let socket = UdpSocket::from(socket);
        epoll.add(&socket, number as u64)?;
        if number == self.all.len() {
            self.all.push(None);
        }
        self.all[number] = Some(Session { socket, client });
        self.of.insert(key(client), number);
        Ok(number)
    }

    /// Takes a reply and sends it, or puts it into slot `slot`. Returns how many slots it filled.
    #[inline]
    fn answer(
        &mut self,
        number: usize,
        listener: &UdpSocket,
        replies: &mut Datagrams,
        slot: usize,
        how: Habits,
    ) -> usize {
        let Some(session) = self.all.get(number).and_then(Option::as_ref) else {
            return 0;
        };
        let Ok(len) = session.socket.recv(replies.room(slot)) else {
            return 0;
        };
        let client = session.client;
        if how.one_reply {
            self.of.remove(&key(client));
            self.all[number] = None;
            self.free.push(number);
        }
        if how.batched {
            replies.set_len(slot, len);
            replies.set_peer(slot, client);
            return 1;
        }
        let _ = listener.send_to(&replies.room(slot)[..len], client);
        0
    }
}

/// A client as one number.
fn key(client: SocketAddrV4) -> u64 {
    u64::from(client.ip().to_bits()) << 16 | u64::from(client.port())
}

/// A hash by one multiplication. Clients choose their addresses, so this is not safe for real service.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key) * 0x9E37_79B9_7F4A_7C15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
