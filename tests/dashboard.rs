//! The Grafana dashboard: it asks for metrics that there are, in panels that do not lie over one another.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words that begin as the metrics' names do.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("udispatch_")).collect()
}

/// Every metric that the dashboard asks for is in the table of families, which is what the daemon exports (tests/metrics.rs).
#[test]
fn it_asks_for_what_there_is() {
    let table = read("docs/metrics.md");
    let families: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    let dashboard = read("packaging/grafana/udispatch.json");
    let asked = names(&dashboard);
    assert!(asked.len() > 20 && families.len() > 20, "both have been read");
    let unknown: Vec<_> = asked.difference(&families).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}

/// Panels have titles and queries, and each its own place on the 24 columns.
#[test]
fn its_panels_are_whole() {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/udispatch.json")).expect("JSON");
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let number = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{name}: {panel}"));
        let title = panel["title"].as_str().expect("a title");
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title}");
        assert!(number("x") + number("w") <= 24, "{title}");
        for y in number("y")..number("y") + number("h") {
            for x in number("x")..number("x") + number("w") {
                assert!(places.insert((x, y)), "{title} lies over another panel");
            }
        }
    }
}
