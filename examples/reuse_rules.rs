//! Which sockets may share a port? This example tries every combination and prints what the kernel allows.
//!
//! ```sh
//! cargo run --example reuse_rules            # one user's sockets
//! sudo target/debug/examples/reuse_rules     # and those of two users
//! ```
//!
//! A row has the options that the first and the second socket set before they bind: none, SO_REUSEADDR (ADDR),
//! SO_REUSEPORT (PORT) or both. A column has the two addresses that they bind, always with the same port. A cell is the
//! result of the second socket: `ok`, or the name of the error.
//!
//! It takes a moment and stays on loopback. It leaves some connections in TIME_WAIT, which the kernel removes after a
//! minute.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::unix::fs::fchown;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};

/// A name, and whether SO_REUSEADDR and SO_REUSEPORT are set.
#[derive(Clone, Copy)]
struct Flags(&'static str, bool, bool);

const FLAGS: [Flags; 4] = [
    Flags("-", false, false),
    Flags("ADDR", true, false),
    Flags("PORT", false, true),
    Flags("ADDR+PORT", true, true),
];

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 1, 2);

/// The two lines of a heading, and the addresses that the first and the second socket bind.
#[derive(Clone, Copy, PartialEq)]
struct Column([&'static str; 2], Ipv4Addr, Ipv4Addr);

const COLUMNS: [Column; 5] = [
    Column(["same", "address"], ONE, ONE),
    Column(["two", "addresses"], ONE, TWO),
    Column(["address,", "wildcard"], ONE, ANY),
    Column(["wildcard,", "address"], ANY, ONE),
    Column(["wildcard", "twice"], ANY, ANY),
];
const MULTICAST: Column = Column(["same", "group"], GROUP, GROUP);
/// The first socket is closed, and one connection that it accepted is in TIME_WAIT.
const TIME_WAIT: Column = Column(["same, in", "TIME_WAIT"], ONE, ONE);

/// What the sockets of a table do after binding. TCP sockets listen, too.
#[derive(Clone, Copy)]
struct Rule {
    title: &'static str,
    kind: Type,
    first_listens_early: bool,
    first_clears_addr: bool,
    second_is_other_users: bool,
}

const UDP: Rule = Rule {
    title: "UDP",
    kind: Type::DGRAM,
    first_listens_early: false,
    first_clears_addr: false,
    second_is_other_users: false,
};
const UDP_LOCKED: Rule = Rule {
    title: "UDP, the first clears ADDR once bound",
    first_clears_addr: true,
    ..UDP
};
const TCP: Rule = Rule {
    title: "TCP, the first listens before the second binds",
    kind: Type::STREAM,
    first_listens_early: true,
    ..UDP
};
const TCP_BOUND: Rule = Rule {
    title: "TCP, both are bound before the first listens",
    first_listens_early: false,
    ..TCP
};
const RULES: [Rule; 7] = [
    UDP,
    UDP_LOCKED,
    TCP,
    TCP_BOUND,
    two_users("UDP, two users", UDP),
    two_users(
        "UDP, two users, the first clears ADDR once bound",
        UDP_LOCKED,
    ),
    two_users(
        "TCP, two users, the first listens before the second binds",
        TCP,
    ),
];

const fn two_users(title: &'static str, rule: Rule) -> Rule {
    Rule {
        title,
        second_is_other_users: true,
        ..rule
    }
}

/// The uid that the second socket of two users is given. No user has it.
const OTHER_USER: u32 = 65533;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("usage: reuse_rules (it takes no arguments)");
        return ExitCode::from(2);
    }
    for rule in &RULES {
        if let Err(error) = print_table(rule) {
            eprintln!(
                "reuse_rules: cannot prepare the table {:?}: {error}",
                rule.title
            );
            return ExitCode::FAILURE;
        }
    }
    println!("* the bind is allowed, the listen that follows is refused");
    ExitCode::SUCCESS
}

fn print_table(rule: &Rule) -> io::Result<()> {
    println!("{}", rule.title);
    if rule.second_is_other_users && !may_change_owner()? {
        println!("(skipped: making a socket another user's needs root)\n");
        return Ok(());
    }
    let mut columns = Vec::from(COLUMNS);
    columns.extend((rule.kind == Type::DGRAM).then_some(MULTICAST));
    columns.extend(rule.first_listens_early.then_some(TIME_WAIT));

    print_row(
        ["first", "second"],
        columns.iter().map(|column| column.0[0]),
    );
    print_row(["flags", "flags"], columns.iter().map(|column| column.0[1]));
    for first in FLAGS {
        if rule.first_clears_addr && !first.1 {
            continue; // Nothing to clear: the row would repeat another table's.
        }
        for second in FLAGS {
            let cells = columns
                .iter()
                .map(|&column| try_pair(rule, column, first, second));
            print_row([first.0, second.0], cells.collect::<io::Result<Vec<_>>>()?);
        }
    }
    println!();
    Ok(())
}

fn print_row<Cell: Display>(flags: [&str; 2], cells: impl IntoIterator<Item = Cell>) {
    let mut row = format!("  {:<9}  {:<9}", flags[0], flags[1]);
    for cell in cells {
        row += &format!("  {cell:<11}");
    }
    println!("{}", row.trim_end());
}

/// Returns one cell: the result of the second socket. An error means that a preparation failed; it is not a result.
fn try_pair(rule: &Rule, column: Column, first: Flags, second: Flags) -> io::Result<String> {
    let port = free_port()?;
    let first = open(rule.kind, first)?;
    bind(&first, column.1, port)?;
    if rule.first_clears_addr {
        first.set_reuse_address(false)?;
    }
    if rule.first_listens_early {
        first.listen(1)?;
    }
    if column == TIME_WAIT {
        leave_in_time_wait(&first, port)?;
    }
    // The first socket stays open to the end of this function, unless only its TIME_WAIT is needed.
    let first = (column != TIME_WAIT).then_some(first);

    let second = open(rule.kind, second)?;
    if rule.second_is_other_users {
        fchown(&second, Some(OTHER_USER), None)?;
    }
    if let Err(error) = bind(&second, column.2, port) {
        return Ok(name_of(&error));
    }
    if rule.kind == Type::STREAM {
        first.as_ref().map_or(Ok(()), |first| first.listen(1))?;
        if let Err(error) = second.listen(1) {
            return Ok(name_of(&error) + "*");
        }
    }
    Ok("ok".to_string())
}

fn open(kind: Type, Flags(_, addr, port): Flags) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_reuse_address(addr)?;
    socket.set_reuse_port(port)?;
    Ok(socket)
}

fn bind(socket: &Socket, address: Ipv4Addr, port: u16) -> io::Result<()> {
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    if address.is_multicast() {
        socket.join_multicast_v4(&address, &Ipv4Addr::LOCALHOST)?;
    }
    Ok(())
}

/// Leaves one accepted connection in TIME_WAIT. The side that closes first gets that state, so the server's end closes
/// first.
fn leave_in_time_wait(listener: &Socket, port: u16) -> io::Result<()> {
    let client = TcpStream::connect((ONE, port))?;
    let (mut server, _) = listener.accept()?;
    server.shutdown(Shutdown::Write)?;
    drop(client);
    // The end of input is the client's FIN, and with its arrival TIME_WAIT begins.
    server.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Returns a port that no socket has, on any address. By default the kernel assigns none below 32768, so no other
/// program gets it by accident while a cell is tried.
fn free_port() -> io::Result<u16> {
    const LOWEST: u16 = 20000;
    const COUNT: u16 = 10000;
    static TRIED: AtomicU16 = AtomicU16::new(0);

    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = LOWEST + (start + TRIED.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let is_free = |kind| {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            socket.bind(&SockAddr::from(SocketAddrV4::new(ANY, port)))
        };
        if is_free(Type::STREAM).is_ok() && is_free(Type::DGRAM).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(
        ErrorKind::AddrInUse,
        "no port from 20000 to 29999 is free",
    ))
}

fn may_change_owner() -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    match fchown(&socket, Some(OTHER_USER), None) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        result => result.map(|()| true),
    }
}

fn name_of(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "EADDRINUSE".to_string(),
        ErrorKind::AddrNotAvailable => "EADDRNOTAVAIL".to_string(),
        ErrorKind::PermissionDenied => "EACCES".to_string(),
        _ => format!("errno {}", error.raw_os_error().unwrap_or_default()),
    }
}
