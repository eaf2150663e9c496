//! The files of the page, which are part of the program. They are HTML, CSS and ES modules that a browser loads as they
//! are: there is no build step, and nothing is loaded from other hosts. `page.js` is the entry point.

use serde_json::{Value, json};

use super::response::{self, Response};
use crate::dispatch::counters::{CounterField, CounterKind};
use crate::dispatch::ledger::{
    HandlerCounters, ListenerCounters, SessionCount, ShadowCounts, UpstreamCounters,
};
use crate::dispatch::verdict::DropReason;

/// A file of the page.
pub struct Asset {
    /// The path at which the file is served. The page refers to its files by relative paths, so that it also works
    /// behind the path prefix of a proxy.
    pub path: &'static str,
    /// The media type of the file.
    pub media_type: &'static str,
    /// The content of the file.
    pub text: &'static str,
}

macro_rules! asset {
    ($path:literal, $media_type:literal, $file:literal) => {
        Asset {
            path: $path,
            media_type: concat!($media_type, "; charset=utf-8"),
            text: include_str!($file),
        }
    };
}

/// All files of the page.
pub const ASSETS: &[Asset] = &[
    asset!("/", "text/html", "index.html"),
    asset!("/page/page.css", "text/css", "page.css"),
    asset!("/page/favicon.svg", "image/svg+xml", "favicon.svg"),
    asset!("/page/page.js", "text/javascript", "page.js"),
    asset!("/page/around.js", "text/javascript", "around.js"),
    asset!("/page/chart.js", "text/javascript", "chart.js"),
    asset!("/page/choice.js", "text/javascript", "choice.js"),
    asset!("/page/details.js", "text/javascript", "details.js"),
    asset!("/page/dom.js", "text/javascript", "dom.js"),
    asset!("/page/fit.js", "text/javascript", "fit.js"),
    asset!("/page/flow.js", "text/javascript", "flow.js"),
    asset!("/page/history.js", "text/javascript", "history.js"),
    asset!("/page/layout.js", "text/javascript", "layout.js"),
    asset!("/page/model.js", "text/javascript", "model.js"),
    asset!("/page/stream.js", "text/javascript", "stream.js"),
    asset!("/page/words.js", "text/javascript", "words.js"),
];

/// Returns the meaning of each drop reason, for the details of a node.
pub fn drop_reasons() -> Response {
    let meanings: Value = DropReason::ALL
        .iter()
        .map(|reason| (reason.label(), reason.meaning()))
        .collect();
    response::json(meanings.to_string().into_bytes())
}

/// Returns the declarations of the counters that the details of a node list, by group.
pub fn counters() -> Response {
    let groups = [
        ("listener", ListenerCounters::FIELDS),
        ("handler", HandlerCounters::FIELDS),
        ("upstream", UpstreamCounters::FIELDS),
        ("sessions", SessionCount::FIELDS),
        ("shadow", ShadowCounts::FIELDS),
    ];
    let declared = |field: &CounterField| {
        json!({
            "key": field.key,
            "label": field.label,
            "help": field.help,
            "is_gauge": field.kind == CounterKind::Gauge,
        })
    };
    let groups: Value = groups
        .iter()
        .map(|(name, fields)| (*name, fields.iter().map(declared).collect::<Value>()))
        .collect();
    response::json(groups.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn served() -> BTreeSet<&'static str> {
        ASSETS
            .iter()
            .map(|asset| asset.path.trim_start_matches("/page/"))
            .collect()
    }

    /// Every file beside this one is served, once.
    #[test]
    fn every_file_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = names
            .filter(|name| name != "mod.rs" && name != "index.html")
            .collect();
        let served: BTreeSet<String> = served()
            .into_iter()
            .filter(|path| *path != "/")
            .map(str::to_owned)
            .collect();
        assert_eq!(files, served);
        assert_eq!(ASSETS.len(), served.len() + 1);
    }

    /// Every file that a file refers to is served. No file refers to another host, and none turns text into markup.
    #[test]
    fn files_refer_only_to_each_other() {
        for asset in ASSETS {
            for start in ["from \"./", "src=\"page/", "href=\"page/"] {
                for rest in asset.text.split(start).skip(1) {
                    let name = rest.split('"').next().unwrap();
                    assert!(
                        served().contains(name),
                        "{} refers to {name}, which is not served",
                        asset.path
                    );
                }
            }
            let own = asset.text.replace("http://www.w3.org/2000/svg", "");
            for never in [
                "http:",
                "https:",
                "//cdn",
                "@import",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!own.contains(never), "{} contains {never}", asset.path);
            }
        }
    }
}
