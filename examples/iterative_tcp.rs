//! The simplest TCP server, made parallel without a thread: start it several times.
//!
//! ```sh
//! cargo run --example iterative_tcp 127.0.0.1:7000    # in as many terminals as you like
//! nc 127.0.0.1 7000                                   # in some others
//! ```
//!
//! Each process serves one connection to its end before it accepts the next. With one process, the second `nc` gets no
//! greeting until the first one ends. Because of SO_REUSEPORT several processes can listen on the same port, and the
//! kernel distributes new connections over them: N processes serve N connections at once.
//!
//! The kernel distributes by a hash of the addresses and ports, whether a process is idle or not. A connection
//! may wait behind a busy process while another process has nothing to do.

use socket2::{Domain, Protocol, Socket, Type};
use std::env;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, ExitCode};

/// Number of connections that may wait in the kernel while one is served.
const BACKLOG: i32 = 128;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [text] = args.as_slice() else {
        return usage("exactly one address is required");
    };
    let Ok(address) = text.parse() else {
        return usage(&format!("{text:?} is not an address with a port"));
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iterative_tcp: cannot serve {address}: {error}");
            eprintln!("Every process on the port must belong to this user and set SO_REUSEPORT.");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("iterative_tcp: {problem}\nusage: iterative_tcp ADDRESS:PORT");
    ExitCode::from(2)
}

fn run(address: SocketAddr) -> io::Result<()> {
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept()?;
        println!("serving {client}");
        match serve(stream) {
            Ok(()) => println!("finished {client}"),
            // A client that disconnects ends its own connection, never the server.
            Err(error) => println!("finished {client}: {error}"),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Greets, then echoes until the client has closed its side.
fn serve(stream: TcpStream) -> io::Result<()> {
    (&stream).write_all(format!("served by PID {}\n", process::id()).as_bytes())?;
    io::copy(&mut &stream, &mut &stream)?;
    Ok(())
}
