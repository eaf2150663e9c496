//! Fuzz targets. Each one takes arbitrary bytes and passes them to one parser or builder. It panics if a property that
//! it describes does not hold.
//!
//! The package in `fuzz/` runs the targets under libFuzzer. The test below runs each target on every file of its corpus
//! and of its regressions, so that `cargo test` repeats every finding.

pub mod config_text;
pub mod control_message;
pub mod http_request;
mod input;
pub mod pcapng;
pub mod proxy_header;
mod stage;
pub mod takeover_frame;
pub mod tap_page;
pub mod worker_state;

/// A fuzz target. It returns if all its properties hold for these bytes.
pub type Target = fn(&[u8]);

/// All targets. The name is that of the binary in `fuzz/fuzz_targets/` and of the folder in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config_text", config_text::run),
    ("control_message", control_message::run),
    ("http_request", http_request::run),
    ("pcapng", pcapng::run),
    ("proxy_header", proxy_header::run),
    ("takeover_frame", takeover_frame::run),
    ("tap_page", tap_page::run),
    ("worker_state", worker_state::run),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
    }

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(name)
    }

    /// Each target holds on its corpus, and on every input that once broke it. The name of a failing file is printed.
    #[test]
    fn corpora_hold() {
        for (name, target) in TARGETS {
            let corpus = files(&folder("corpus").join(name));
            assert!(!corpus.is_empty(), "{name} has no corpus");
            let findings = folder("regressions").join(name);
            let findings = if findings.is_dir() {
                files(&findings)
            } else {
                Vec::new()
            };
            for file in corpus.iter().chain(&findings) {
                eprintln!("{}", file.display());
                target(&fs::read(file).expect("a file of the corpus"));
            }
        }
        http_request::stop();
    }

    /// Each target has a binary of its name, and no corpus belongs to a target that does not exist.
    #[test]
    fn every_target_has_a_binary_and_every_corpus_a_target() {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        let stems = |folder: &Path| -> Vec<String> {
            let stem = |file: &PathBuf| {
                file.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            };
            files(folder).iter().map(stem).collect()
        };
        assert_eq!(stems(&folder("fuzz_targets")), names);
        assert_eq!(stems(&folder("corpus")), names);
        let unknown = stems(&folder("regressions"))
            .into_iter()
            .find(|name| !names.contains(&&**name));
        assert_eq!(unknown, None, "a folder of regressions without a target");
    }
}
