//! Restarts the real daemon again and again under traffic, and reports which datagrams were lost, arrived twice or out
//! of order, and for how long none arrived.
//!
//! ```sh
//! cargo build --release && cargo run --release --example soak -- --restarts 1000 --rate 100000
//! ```
//!
//! `traffic.rs` sends numbered datagrams and records in `flow.rs` which of them arrive. `driver.rs` restarts the daemon
//! of `daemon.rs`, with the configurations of `configuration.rs` and the faults of `failing.rs`. `report.rs` prints the
//! results. Everything happens on loopback, in a network namespace of its own (`network.rs`) where the system allows
//! one.

mod configuration;
mod daemon;
mod driver;
mod failing;
mod flow;
mod network;
mod report;
mod traffic;
mod window;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use rustix::process::{getpid, set_child_subreaper};
use udispatch::net::limits;

use configuration::{Places, VARIANTS};
use daemon::Daemon;
use driver::{Diary, Driver, Progress, Restart};
use flow::MARK_BYTES;
use report::{Report, Results};
use traffic::{Load, Order, Outcome, Traffic};

/// Restart udispatch again and again under traffic, and count what is lost
///
/// Exits with 0 if nothing was lost, arrived twice or arrived out of order, and the daemon's ledger agrees. Losses in
/// kills do not count.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Number of reloads, and of takeovers
    #[arg(long, value_name = "N", default_value_t = 100)]
    restarts: u64,
    /// Number of reloads [default: the number of restarts]
    #[arg(long, value_name = "N")]
    reloads: Option<u64>,
    /// Number of takeovers [default: the number of restarts]
    #[arg(long, value_name = "N")]
    takeovers: Option<u64>,
    /// Number of takeovers that fail on purpose [default: a tenth of the restarts]
    #[arg(long, value_name = "N")]
    failed: Option<u64>,
    /// Number of kills, each followed by a start; their losses are reported separately
    #[arg(long, value_name = "N", default_value_t = 0)]
    kills: u64,
    /// Datagrams a second, without replies
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    rate: u64,
    /// Flows that send all the time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// Percentage of flows with sessions, which get replies
    #[arg(long = "answered", value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(..=100))]
    replied_percent: u8,
    /// Number of further sessions, which send now and then
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(..=20_000))]
    sessions: u16,
    /// Bytes of a datagram
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(MARK_BYTES as i64..=1_400))]
    size: u16,
    /// Time between two restarts
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Start with one worker: when sockets are added later, the kernel distributes all flows anew, and some sessions
    /// begin anew
    #[arg(long)]
    grow: bool,
    /// The daemon's `receive_buffer`
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    receive_buffer: String,
    /// The daemon's program [default: the one in this program's build directory]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Stay in the host's network
    #[arg(long)]
    host: bool,
    /// Show the daemon's log
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if !arguments.host && !network::enter().context("cannot enter a network of its own")? {
        eprintln!(
            "cannot make a network namespace (`unshare`); the soak uses the host's loopback instead"
        );
    }
    limits::raise_open_files();
    // Each process that a takeover leaves behind becomes a child of this one, and each child belongs to the soak.
    set_child_subreaper(Some(getpid())).context("cannot adopt the daemon's processes")?;
    let report = soak(arguments)?;
    print!("{report}");
    if let Some(path) = &arguments.json {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(report.is_success())
}

impl Arguments {
    fn load(&self) -> Load {
        let flows = usize::from(self.flows);
        Load {
            rate: self.rate.max(1) as f64,
            flows,
            with_sessions: flows * usize::from(self.replied_percent) / 100,
            idle: self.sessions.into(),
            size: self.size.into(),
            begins_small: self.grow,
        }
    }

    fn counts(&self) -> [(Restart, u64); 4] {
        let reloads = self.reloads.unwrap_or(self.restarts);
        let takeovers = self.takeovers.unwrap_or(self.restarts);
        let failed = self.failed.unwrap_or(self.restarts.div_ceil(10));
        [
            (Restart::Reload, reloads),
            (Restart::Takeover, takeovers),
            (Restart::FailedTakeover, failed),
            (Restart::Kill, self.kills),
        ]
    }

    fn binary(&self) -> anyhow::Result<PathBuf> {
        let beside = || {
            let this = std::env::current_exe()?;
            let profile = this
                .parent()
                .and_then(|examples| examples.parent())
                .context("target/PROFILE/examples")?;
            anyhow::Ok(profile.join("udispatch"))
        };
        let binary = self.binary.clone().map_or_else(beside, Ok)?;
        ensure!(
            binary.is_file(),
            "there is no {}: build it with `cargo build` (with --release if this program was), or name one with --binary",
            binary.display()
        );
        Ok(std::path::absolute(binary)?)
    }
}

/// Returns free ports for the daemon, and sockets for the datagrams that it forwards.
fn places() -> anyhow::Result<(Places, UdpSocket, UdpSocket)> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind to loopback");
    // No other socket is bound to that address, so no session has its port while the listener does not exist.
    let extra =
        UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).context("cannot bind to 127.0.0.2")?;
    // The sockets stay open until all ports are known, so that no two are equal.
    let held = [bind()?, bind()?, extra];
    let address = |socket: &UdpSocket| socket.local_addr().map_err(anyhow::Error::from);
    let free: Vec<SocketAddr> = held.iter().map(address).collect::<Result<_, _>>()?;
    let one_way = bind()?;
    let upstream = bind()?;
    let places = Places {
        one_way: free[0],
        sessions: free[1],
        extra: free[2],
        receiver: one_way.local_addr()?,
        upstream: upstream.local_addr()?,
    };
    Ok((places, one_way, upstream))
}

fn soak(arguments: &Arguments) -> anyhow::Result<Report> {
    let load = arguments.load();
    let directory = tempfile::tempdir()?;
    let (places, one_way, upstream) = places()?;
    let variant = usize::from(arguments.grow);
    let first = VARIANTS[variant].text(&places, &arguments.receive_buffer);
    std::fs::write(directory.path().join("soak.toml"), first)?;
    let mut daemon = Daemon::start(
        arguments.binary()?,
        directory.path().to_owned(),
        arguments.log,
    )?;
    let mut traffic = Traffic::new(load, places, one_way, upstream)?;
    traffic
        .open_sessions()
        .context("cannot open the sessions")?;
    let (orders, ordered) = channel();
    let sending = thread::Builder::new()
        .name("traffic".to_owned())
        .spawn(move || traffic.run(&ordered))?;
    let mut diary = Diary::default();
    let mut driver = Driver {
        daemon: &mut daemon,
        orders: &orders,
        places,
        receive_buffer: &arguments.receive_buffer,
        interval: arguments.interval,
        progress: Progress {
            variant,
            ..Progress::default()
        },
    };
    let driven = driver.drive(&arguments.counts(), &mut diary);
    // If it has ended already, the report states the reason.
    let _ = orders.send(Order::Stop);
    let outcome: Outcome = sending
        .join()
        .map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
    let ledger = daemon.status().ok();
    let stopped = daemon.stop();
    let ended_early = driven.and(stopped).err().map(|error| format!("{error:#}"));
    let complaints = std::mem::take(&mut daemon.complaints);
    Ok(Report::new(Results {
        load: &load,
        outcome: &outcome,
        diary: &diary,
        ledger: ledger.as_ref(),
        complaints,
        ended_early,
    }))
}
