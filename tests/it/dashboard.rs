//! The Grafana dashboard: it uses metrics that exist, in queries that Prometheus accepts, in panels that do not
//! overlap.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::curl::curl;
use crate::common::daemon::Daemon;
use crate::common::namespace::netns_test;
use crate::common::restart::{Talker, reporting};
use crate::common::upstream::{forwarder, list};
use crate::common::{Lazy, TIMEOUT, eventually_within};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of a text that begin as the names of metrics do.
fn names(text: &str) -> BTreeSet<&str> {
    let words =
        text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words
        .filter(|word| word.starts_with("udispatch_"))
        .collect()
}

/// Every metric that the dashboard uses is in the table of families, which is what the daemon exports
/// (tests/it/metrics.rs).
#[test]
fn it_asks_for_what_there_is() {
    let table = read("docs/metrics.md");
    let families: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let dashboard = read("packaging/grafana/udispatch.json");
    let asked = names(&dashboard);
    assert!(
        asked.len() > 20 && families.len() > 20,
        "both have been read"
    );
    let unknown: Vec<_> = asked.difference(&families).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}

/// Panels have titles and queries, and do not overlap on the 24 columns.
#[test]
fn its_panels_are_whole() {
    let dashboard: Value =
        serde_json::from_str(&read("packaging/grafana/udispatch.json")).expect("JSON");
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let number = |name: &str| {
            panel["gridPos"][name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {panel}"))
        };
        let title = panel["title"].as_str().expect("a title");
        let is_row = panel["type"] == "row";
        assert!(
            is_row
                || panel["targets"]
                    .as_array()
                    .is_some_and(|targets| !targets.is_empty()),
            "{title}"
        );
        assert!(number("x") + number("w") <= 24, "{title}");
        for y in number("y")..number("y") + number("h") {
            for x in number("x")..number("x") + number("w") {
                assert!(places.insert((x, y)), "{title} lies over another panel");
            }
        }
    }
}

/// The address at which the daemon is scraped.
const SCRAPED: &str = "127.0.0.1:9253";
const PROMETHEUS: &str = "127.0.0.1:9090";

/// The configuration of Prometheus: one target, scraped each second.
const SCRAPES: &str = r#"
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: udispatch
    static_configs: [{ targets: ["127.0.0.1:9253"] }]
"#;

/// A Prometheus that scrapes the daemon, until it is dropped.
struct Prometheus {
    process: Child,
    directory: tempfile::TempDir,
}

impl Prometheus {
    fn start() -> Prometheus {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, SCRAPES).expect("written");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        Prometheus {
            process: command.spawn().expect("prometheus starts"),
            directory,
        }
    }

    /// The result of a query, or the error message about it. `None` as long as Prometheus does not respond.
    fn ask(&self, query: &str) -> Option<Result<Vec<Value>, String>> {
        let query = format!("query={query}");
        let answer = curl(&[
            "--data-urlencode",
            &query,
            &format!("http://{PROMETHEUS}/api/v1/query"),
        ]);
        let body: Value = serde_json::from_str(&answer.body).ok()?;
        match body["data"]["result"].as_array() {
            Some(found) => Some(Ok(found.clone())),
            None => Some(Err(body["error"].to_string())),
        }
    }

    /// Waits until a query has a result.
    fn find(&self, query: &str) {
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        eventually_within(2 * TIMEOUT, query, || match self.ask(query) {
            Some(Ok(found)) if !found.is_empty() => Ok(()),
            Some(Err(error)) => panic!("{query}: {error}"),
            _ => Err(Lazy(log)),
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A real Prometheus accepts each query, and finds something for each one that does not ask for faults only.
#[test]
fn prometheus_understands_it() {
    netns_test!(needs = ["prometheus", "curl"]);
    let server = reporting("127.0.0.1:9001");
    let config = format!("[daemon]\nhttp = \"{SCRAPED}\"\n");
    let config = config + &forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
    let daemon = Daemon::start(&config);
    let prometheus = Prometheus::start();
    let talker = Talker::begin("127.0.0.1:1000");
    // A rate needs two samples.
    prometheus.find("count_over_time(udispatch_state[1m]) > 2");
    let dashboard: Value =
        serde_json::from_str(&read("packaging/grafana/udispatch.json")).expect("JSON");
    let targets = dashboard["panels"]
        .as_array()
        .expect("panels")
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut empty = Vec::new();
    for target in targets.flatten() {
        let query = target["expr"].as_str().expect("a query");
        // Grafana replaces these variables.
        let filled = query
            .replace("$job", ".*")
            .replace("$instance", ".*")
            .replace("$__rate_interval", "1m");
        assert!(!filled.contains('$'), "{filled}");
        let found = prometheus
            .ask(&filled)
            .expect("it answers")
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let is_about_trouble = query.ends_with("> 0") || query.contains("alarm_active");
        if found.is_empty() && !is_about_trouble {
            empty.push(query);
        }
    }
    assert!(empty.is_empty(), "nothing is found: {empty:#?}");
    assert!(talker.end() > 0);
    daemon.stop();
}
