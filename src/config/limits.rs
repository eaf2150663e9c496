//! Every limit of a configuration file, with its reason. Whatever exceeds a limit is rejected with a problem that
//! names the limit; nothing is truncated silently.

/// Bytes in a file. A route takes about 100 bytes, so files written by people or generators stay far below this.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes in a file whose syntax errors are all reported. For a larger file, only the first error is reported.
pub const RECOVERY_BYTES_MAX: usize = 1024 * 1024;

/// Number of `[[route]]` tables.
pub const ROUTES_MAX: usize = 65_536;

/// Number of `[handler.NAME]` tables.
pub const HANDLERS_MAX: usize = 4_096;

/// Number of `[[test]]` tables. Every test runs before every reload.
pub const TESTS_MAX: usize = 1_000;

/// Number of prefixes in the `expect_every` of one route. Each prefix has a clock of its own.
pub const EXPECTATIONS_MAX: usize = 64;

/// Number of names in `http_hosts`. Each request is compared with all of them.
pub const HTTP_HOSTS_MAX: usize = 64;

/// Bytes in the path of a unix socket. `sun_path` holds 108 bytes including the final NUL (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes in a host name (RFC 1035, section 2.3.4, as text without the final dot).
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// Bytes in the payload of a UDP datagram over IPv4: 65,535 less the headers of IP and UDP.
pub const PAYLOAD_BYTES_MAX: usize = 65_507;

/// Bytes in the name of a handler or a route. Both become labels of metrics.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes in the name of a network interface. The kernel's IFNAMSIZ of 16 includes the final NUL.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Number of sockets that the destinations need. Each combination of address, interface and port needs one socket,
/// which is a file descriptor in every worker.
pub const LISTENERS_MAX: usize = 4_096;

/// Number of rows in the route table: for each route, its destinations times its sources.
pub const MATCH_ROWS_MAX: usize = 262_144;

/// Number of rows in all compiled tables together. The rows that match change only at the ends of port ranges, so all
/// ports between two such ends share a table. A table takes about 600 bytes a row; all tables together take at most
/// 1.3 GB.
pub const COMPILED_ROWS_MAX: usize = 2_097_152;

/// Number of upstreams of one `forward` handler. Each of them takes a socket in every worker.
pub const UPSTREAMS_MAX: usize = 1_024;
const _: () = assert!(
    UPSTREAMS_MAX < u16::MAX as usize,
    "sessions, ports and picks name an upstream of their handler by 16 bits, and u16::MAX is none"
);

/// Highest weight of an upstream.
pub const WEIGHT_MAX: u64 = 1_000;

/// Largest denominator of a sample, in datagrams.
pub const SAMPLE_MAX: u32 = 1_000_000;

/// Number of sessions of one handler, over all workers.
pub const SESSIONS_MAX: u64 = 1_048_576;

/// Number of sessions times upstreams, if each session may use all upstreams. Each pair takes 8 bytes in every worker.
pub const LEGS_MAX: u64 = 16 << 20;

/// Highest value of `requests_max` and `replies_max`, in datagrams.
pub const SESSION_DATAGRAMS_MAX: u64 = 1_000_000;

/// Bytes of the payload that are hashed.
pub const HASHED_BYTES_MAX: u64 = 1_024;

/// Bytes that a probe sends or expects.
pub const PROBE_BYTES_MAX: usize = 1_024;

/// Number of consecutive probes that `rise` and `fall` may require.
pub const STREAK_MAX: u64 = 100;

/// Number of threads that receive.
pub const WORKERS_MAX: usize = 64;

/// Bytes that may be requested for a socket buffer. The kernel doubles the number in a signed 32-bit integer.
pub const BUFFER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes below which a receive buffer does not hold even one datagram of the largest size.
pub const BUFFER_BYTES_MIN: u64 = 128 * 1024;

/// Days in the longest duration. No setting needs a longer one, and sums of such durations cannot overflow.
pub const DURATION_DAYS_MAX: u64 = 365;

/// Number of problems that are kept. Further ones are only counted, so that a wrong file cannot exhaust memory.
pub const PROBLEMS_KEPT_MAX: usize = 1_000;

/// Number of problems that are printed in full. Suggestions for misspelt names are searched for only until this
/// number is reached, because further ones would not be printed.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// Bytes in a line that is shown under a problem. Of a longer line, only its number and the column are shown.
pub const LINE_BYTES_SHOWN_MAX: usize = 4_096;

/// Characters of the file that a message repeats.
pub const QUOTED_CHARS_MAX: usize = 60;
