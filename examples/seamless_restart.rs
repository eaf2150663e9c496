//! A restart that loses no request: a new instance joins the UDP port, then the old one leaves.
//!
//! ```sh
//! cargo run --example seamless_restart 127.0.0.1:7000    # first terminal
//! cargo run --example seamless_restart 127.0.0.1:7000    # second terminal: joins the port
//! ```
//!
//! Now press Enter in the first terminal. That instance replies to what has already reached its socket, prints how many
//! requests it replied to, and ends. The second one continues to serve. A client that sends requests all the time
//! (examples/README.md has one) gets every reply.
//!
//! The naive way, which `--naive` shows, is to close the old socket once the new one is bound. It loses requests: the
//! kernel distributes datagrams over both sockets until the moment of the close, and the close discards the queue.
//! Emptying the queue first does not help, because it fills again meanwhile.
//!
//! The solution is to *stop the arrivals first*. A connected UDP socket receives only from its peer, and the kernel
//! skips it when it picks a socket of a SO_REUSEPORT group. So the old instance connects its socket to that socket's
//! own address, from which nothing is sent. New requests go to the new instance, the queue is kept, and once it is
//! empty it stays empty.

use socket2::{Domain, Protocol, Socket, Type};
use std::env;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The time that the work for a real request takes. Without it the queue would mostly be empty, and the naive way would
/// look right until the first busy day.
const WORK: Duration = Duration::from_millis(1);

/// Time for which the queue must be empty after the arrivals were stopped. A datagram for which the kernel chose this
/// socket just before may still be on its way into the queue.
const QUIET: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (text, naive) = match args.as_slice() {
        [text] => (text, false),
        [text, flag] if flag == "--naive" => (text, true),
        _ => return usage("exactly one address is required, and at most the flag --naive"),
    };
    let Ok(address) = text.parse::<SocketAddr>() else {
        return usage(&format!("{text:?} is not an address with a port"));
    };
    if address.ip().is_unspecified() {
        return usage("a wildcard cannot be served: connecting it would change its address");
    }
    match run(address, naive) {
        Ok(replies) => {
            println!("left after {replies} replies");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seamless_restart: cannot serve {address}: {error}");
            eprintln!("Every process on the port must belong to this user and set SO_REUSEPORT.");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("seamless_restart: {problem}\nusage: seamless_restart ADDRESS:PORT [--naive]");
    ExitCode::from(2)
}

/// Serves until the instance must leave. Returns the number of replies.
fn run(address: SocketAddr, naive: bool) -> io::Result<u64> {
    let socket = bind(address)?;
    let address = socket.local_addr()?;
    println!("listening on {address}");
    println!("press Enter to make this instance leave, once another one is listening");

    let leaving = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::stdin().read_line(&mut String::new());
            if !naive && let Err(error) = socket.connect(address) {
                eprintln!("seamless_restart: staying, as arrivals cannot be stopped: {error}");
                return;
            }
            leaving.store(true, Ordering::Release);
        });
        reply_to_all(&socket, &leaving, naive)
    })
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.set_read_timeout(Some(QUIET))?;
    Ok(socket.into())
}

fn reply_to_all(socket: &UdpSocket, leaving: &AtomicBool, naive: bool) -> io::Result<u64> {
    let mut buffer = [0; 2048];
    let mut replies = 0;
    loop {
        // This is read before receiving, so that a whole QUIET passes between the stop and the end.
        let may_end = leaving.load(Ordering::Acquire);
        if may_end && naive {
            return Ok(replies);
        }
        match socket.recv_from(&mut buffer) {
            Ok((len, client)) => {
                thread::sleep(WORK);
                let request = String::from_utf8_lossy(&buffer[..len]);
                let reply = format!("{} from PID {}\n", request.trim(), process::id());
                match socket.send_to(reply.as_bytes(), client) {
                    Ok(_) => replies += 1,
                    Err(error) => eprintln!("seamless_restart: client {client}: {error}"),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if may_end {
                    return Ok(replies);
                }
            }
            // A receive with a timeout may be interrupted even without a signal handler.
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}
