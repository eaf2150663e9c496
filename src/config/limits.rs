//! Every limit that a configuration file meets, with its reason. What goes beyond is refused with a
//! problem that names the limit; nothing here is ever cut off silently.

/// Bytes in a file. A route takes about 100, so this is far beyond what people or generators write.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes in a file of which all mistakes of syntax are told; of larger ones, the first.
pub const RECOVERY_BYTES_MAX: usize = 1024 * 1024;

/// `[[route]]` tables.
pub const ROUTES_MAX: usize = 65_536;

/// `[handler.NAME]` tables.
pub const HANDLERS_MAX: usize = 4_096;

/// `[[test]]` tables. Each is run by itself before every reload.
pub const TESTS_MAX: usize = 1_000;

/// Prefixes of one route of which each is expected to be heard: each has a clock of its own.
pub const EXPECTATIONS_MAX: usize = 64;

/// Names in `http_hosts`: each request is compared with all of them.
pub const HTTP_HOSTS_MAX: usize = 64;

/// Bytes in the path of a unix socket: sun_path holds 108 with its final zero (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes in the name of a host (RFC 1035, section 2.3.4, as text without the final dot).
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// Bytes in a UDP datagram over IPv4: 65,535 less the headers of IP and UDP.
pub const PAYLOAD_BYTES_MAX: usize = 65_507;

/// Bytes in the name of a handler or a route: both become labels of metrics.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes in the name of a network interface: the kernel's IFNAMSIZ of 16 holds a final zero.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Sockets that the destinations ask for: each address, interface and port is one, and each is a file
/// descriptor in every worker.
pub const LISTENERS_MAX: usize = 4_096;

/// Rows of the route table: the destinations of a route times its sources, over all routes.
pub const MATCH_ROWS_MAX: usize = 262_144;

/// Rows of all compiled tables together. Between two borders of port ranges the same rows match, so those ports share a
/// table; each takes about 600 bytes a row, all together at most 1.3 GB.
pub const COMPILED_ROWS_MAX: usize = 2_097_152;

/// Threads that receive.
pub const WORKERS_MAX: usize = 64;

/// Bytes that a socket buffer may be asked to hold: the kernel doubles the number in a signed 32-bit
/// integer.
pub const BUFFER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes below which a receive buffer holds not even one datagram of the largest size.
pub const BUFFER_BYTES_MIN: u64 = 128 * 1024;

/// Days in the longest duration. Nobody waits longer, and sums of such durations cannot overflow.
pub const DURATION_DAYS_MAX: u64 = 365;

/// Problems that are kept; the rest is only counted, so that a wrong file cannot fill the memory.
pub const PROBLEMS_KEPT_MAX: usize = 1_000;

/// Problems that are printed in full. The names that might have been meant are searched for only as
/// long as somebody will read them.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// Bytes in a line that is shown under a problem; of longer ones only line and column are told.
pub const LINE_BYTES_SHOWN_MAX: usize = 4_096;

/// Characters that a message repeats of what the file says.
pub const QUOTED_CHARS_MAX: usize = 60;
