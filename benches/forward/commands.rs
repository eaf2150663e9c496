//! How each forwarder is started, and its configuration: as fast as we can make it, and nothing that the work does not
//! need.

use crate::cell::{Cell, Talk, Way};
use crate::setup::Setup;
use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// The faster way of sending replies by hand, and the other one.
const REPLIES: [&str; 2] = ["sendmmsg", "sendto"];

impl Setup<'_> {
    fn talk(&self) -> Option<&Talk> {
        match self.cell {
            Cell::Exchange(talk) => Some(talk),
            Cell::Forward(_) => None,
        }
    }

    /// Number of sessions that a proxy must be able to hold, because one-shot ones may linger.
    fn sessions(&self) -> usize {
        self.talk().map_or(1, |talk| {
            if talk.is_one_shot {
                32_768
            } else {
                talk.clients
            }
        })
    }

    fn is_one_shot(&self) -> bool {
        self.talk().is_some_and(|talk| talk.is_one_shot)
    }

    /// Writes a configuration.
    fn file(&self, name: &str, text: &str) -> io::Result<std::path::PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// Returns the program that the environment variable names, or else the one of that name in PATH.
fn program(variable: &str, name: &str) -> Command {
    Command::new(env::var_os(variable).unwrap_or_else(|| name.into()))
}

pub(crate) fn by_hand(setup: &Setup) -> io::Result<Command> {
    by_hand_with(setup, REPLIES[0])
}

pub(crate) fn by_hand_other(setup: &Setup) -> io::Result<Command> {
    by_hand_with(setup, REPLIES[1])
}

fn by_hand_with(setup: &Setup, replies: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    if setup.talk().is_some() {
        let end = if setup.is_one_shot() {
            "one-reply"
        } else {
            "for-ever"
        };
        command.args(["by-hand-sessions", replies, end]);
    } else {
        command.arg("by-hand");
    }
    command
        .arg(setup.listen.to_string())
        .args(setup.upstreams.iter().map(ToString::to_string));
    Ok(command)
}

pub(crate) fn udispatch(setup: &Setup, settings: &str) -> io::Result<Command> {
    let way = match setup.cell {
        Cell::Forward(_) => "pick = \"all\"\n",
        Cell::Exchange(_) if setup.is_one_shot() => {
            "replies = true\nreplies_max = 1\nsession_max = 131072\n"
        }
        Cell::Exchange(_) => "pick = \"hash\"\nreplies = true\nsession_max = 131072\n",
    };
    let upstreams = upstreams(setup);
    let mut config =
        format!("[handler.out]\nkind = \"forward\"\nupstreams = [{upstreams}]\n{way}{settings}");
    for destination in destinations(setup) {
        let _ = write!(
            config,
            "[[route]]\ndestination = \"{destination}\"\nhandler = \"out\"\n"
        );
    }
    let mut command = program("UDISPATCH", env!("CARGO_BIN_EXE_udispatch"));
    command
        .arg("run")
        .arg(setup.file("udispatch.toml", &config)?)
        .args(["--workers", "1"]);
    Ok(command)
}

/// The upstreams in the notation of udispatch's configuration. In an exchange, several of them are one server. Each one
/// is asked from an address of its own, because one address has too few ports for all sessions.
fn upstreams(setup: &Setup) -> String {
    let entry = |(number, upstream): (usize, &SocketAddr)| match setup.talk() {
        Some(_) if number > 0 => {
            format!("{{ address = \"{upstream}\", source = \"127.0.1.{number}\" }}")
        }
        _ => format!("\"{upstream}\""),
    };
    setup
        .upstreams
        .iter()
        .enumerate()
        .map(entry)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The address of the listener. With more routes, there is a prefix for each of them, and the wildcard.
fn destinations(setup: &Setup) -> Vec<String> {
    let routes = if let Cell::Forward(Way { routes, .. }) = setup.cell {
        *routes
    } else {
        1
    };
    let prefixes = (1..routes).map(|route| format!("{}/24:{}", prefix(route), setup.listen.port()));
    prefixes.chain([setup.listen.to_string()]).collect()
}

/// The first address of a route's /24.
pub(crate) fn prefix(route: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 128, 0, 0).to_bits() + route as u32 * 256)
}

pub(crate) fn socat(setup: &Setup) -> io::Result<Command> {
    let mut command = Command::new("socat");
    let listen = setup.listen;
    let upstream = setup.upstreams[0];
    let buffer = setup.receive_buffer;
    if setup.talk().is_some() {
        command.args(["-b65536", "-T60"]);
        command.arg(format!(
            "UDP4-LISTEN:{},bind={},reuseaddr,fork",
            listen.port(),
            listen.ip()
        ));
    } else {
        command.args(["-u", "-b65536"]);
        command.arg(format!(
            "UDP4-RECV:{},bind={},rcvbuf={buffer}",
            listen.port(),
            listen.ip()
        ));
    }
    command.arg(format!("UDP4:{upstream}"));
    Ok(command)
}

pub(crate) fn nginx(setup: &Setup, settings: &str) -> io::Result<Command> {
    const MODULES: [&str; 3] = [
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "/usr/lib64/nginx/modules/ngx_stream_module.so",
        "/usr/libexec/nginx/ngx_stream_module.so",
    ];
    // If there is no such file, the module is built in, or nginx reports that it is missing.
    let load = MODULES
        .iter()
        .find(|path| Path::new(path).exists())
        .map(|path| format!("load_module {path};"))
        .unwrap_or_default();
    let folder = setup.folder.display();
    let listen = setup.listen;
    let upstream = setup.upstreams[0];
    let buffer = setup.receive_buffer;
    // A session needs two connections.
    let connections = 4096 + 2 * setup.sessions();
    let responses = if setup.is_one_shot() {
        "proxy_responses 1;"
    } else {
        ""
    };
    let config = format!(
        "{load}\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log error;\n\
         events {{ worker_connections {connections}; multi_accept on; }}\n\
         stream {{ server {{ listen {listen} udp rcvbuf={buffer}; proxy_pass {upstream}; {responses} {settings} }} }}\n"
    );
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg(setup.folder.join("log"))
        .arg("-p")
        .arg(setup.folder);
    command.arg("-c").arg(setup.file("nginx.conf", &config)?);
    Ok(command)
}

/// Envoy has no setting that ends a session after one reply. In the one-shot cell its sessions end after the shortest
/// sensible timeout.
pub(crate) fn envoy(setup: &Setup) -> io::Result<Command> {
    let socket = |address: SocketAddr| {
        format!(
            "{{socket_address: {{protocol: UDP, address: {}, port_value: {}}}}}",
            address.ip(),
            address.port()
        )
    };
    let listen = socket(setup.listen);
    let upstream = socket(setup.upstreams[0]);
    let idle = if setup.is_one_shot() { "1s" } else { "60s" };
    let sol_socket = libc::SOL_SOCKET;
    let rcvbuf = libc::SO_RCVBUF;
    let buffer = setup.receive_buffer;
    let config = format!(
        r#"static_resources:
  listeners:
  - name: listener
    address: {listen}
    udp_listener_config: {{downstream_socket_config: {{prefer_gro: true}}}}
    socket_options: [{{level: {sol_socket}, name: {rcvbuf}, int_value: {buffer}, state: STATE_PREBIND}}]
    listener_filters:
    - name: envoy.filters.udp_listener.udp_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig
        stat_prefix: proxy
        idle_timeout: {idle}
        matcher:
          on_no_match:
            action:
              name: route
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route
                cluster: upstream
  clusters:
  - name: upstream
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 1000000}}]}}
    load_assignment:
      cluster_name: upstream
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {upstream}}}}}]}}]
"#
    );
    let mut command = program("ENVOY", "envoy");
    command.arg("-c").arg(setup.file("envoy.yaml", &config)?);
    command.args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]);
    Ok(command)
}

/// The main process of Sōzu starts a worker, which does the work. The numbers are those of both.
pub(crate) fn sozu(setup: &Setup) -> io::Result<Command> {
    let folder = setup.folder.display();
    let listen = setup.listen;
    let upstream = setup.upstreams[0];
    // Sōzu requires two files for each connection, although a flow needs one.
    let connections = (4096 + 2 * setup.sessions()).min(setup.files_max as usize / 2);
    let flows = setup.sessions() + 16;
    let responses = u32::from(setup.is_one_shot());
    let config = format!(
        r#"command_socket = "{folder}/sozu.sock"
log_level = "error"
log_target = "stdout"
worker_count = 1
max_connections = {connections}
activate_listeners = true
[[listeners]]
protocol = "udp"
address = "{listen}"
max_rx_datagram_size = 16000
max_flows = {flows}
[clusters.upstream]
protocol = "tcp"
frontends = [{{ address = "{listen}" }}]
backends = [{{ address = "{upstream}" }}]
[clusters.upstream.udp]
affinity_key = "SOURCE_IP_PORT"
responses = {responses}
"#
    );
    let mut command = program("SOZU", "sozu");
    command
        .arg("start")
        .arg("-c")
        .arg(setup.file("sozu.toml", &config)?);
    Ok(command)
}
