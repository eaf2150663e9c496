//! An HTTP server to start several times on one port: the kernel is the load balancer.
//!
//! ```sh
//! cargo run --example reuseport_http 127.0.0.1:8080     # in three terminals
//! for i in $(seq 20); do curl -s http://127.0.0.1:8080/; done
//! ```
//!
//! Each response names the process that sent it, as in `Client [127.0.0.1:40000] received msg from Server PID: [1234]`,
//! and all three appear: the kernel picks a listener for each new connection by a hash of its addresses and ports.
//!
//! A fourth process can join, but only if it belongs to the same user. Run it as another one (`sudo -u nobody ...`) and
//! its bind fails with EADDRINUSE: no other user can take a share of the traffic. All of them must set SO_REUSEPORT,
//! the first one too.

use socket2::{Domain, Protocol, Socket, Type};
use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, ExitCode};
use std::time::Duration;

const BACKLOG: i32 = 128;
const REQUEST_MAX_BYTES: u64 = 8192;
/// One client is served at a time, so a silent one must not delay the others for long.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

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
            eprintln!(
                "reuseport_http: cannot serve {address}: {}",
                explain(&error)
            );
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("reuseport_http: {problem}\nusage: reuseport_http ADDRESS:PORT");
    ExitCode::from(2)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "EADDRINUSE: the port belongs to another user, or to a socket \
             without SO_REUSEPORT; run as that user, or choose another port"
            .to_string(),
        _ => error.to_string(),
    }
}

fn run(address: SocketAddr) -> io::Result<()> {
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept()?;
        if let Err(error) = respond(&stream, client) {
            eprintln!("reuseport_http: client {client}: {error}");
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

fn respond(mut stream: &TcpStream, client: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let (status, body) = match read_request(stream)?.split(' ').collect::<Vec<_>>()[..] {
        ["GET", _, "HTTP/1.1" | "HTTP/1.0"] => (
            "200 OK",
            format!(
                "Client [{client}] received msg from Server PID: [{}]\n",
                process::id()
            ),
        ),
        [_, _, "HTTP/1.1" | "HTTP/1.0"] => ("501 Not Implemented", "only GET\n".to_string()),
        _ => ("400 Bad Request", "not an HTTP/1.1 request\n".to_string()),
    };
    // The connection is closed after each response, so that every request is a new connection. Connections are what the
    // kernel distributes: requests on a connection that stays open all go to the process that accepted it.
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

/// Reads to the empty line that ends the head. Returns the first line.
fn read_request(stream: &TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(stream.take(REQUEST_MAX_BYTES)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        // Closing with unread input would reset the connection and could destroy the response.
        if line?.is_empty() {
            break;
        }
    }
    Ok(request)
}
