//! `udispatch schema`: prints the configuration language as a JSON schema, for editors.

use clap::Args;

use super::{Exit, output};
use crate::config::{Kind, schema};

/// Print a JSON schema of configuration files, for editors
///
/// Editors that support TOML (taplo, Even Better TOML) complete and check a file whose first line names it:
/// `#:schema ./udispatch.schema.json`.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn main(_: Arguments, kinds: &[Kind]) -> Exit {
    output::print(&format!("{:#}\n", schema(kinds)))
}
