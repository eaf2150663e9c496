//! `drop`: discards datagrams, so that they are counted with a reason of their own (`discarded`).

use crate::config::kind::{BuildContext, BuildError, HandlerSpec, Kind, Needs};
use crate::dispatch::handler::{Batch, Context, Handler};
use crate::dispatch::verdict::DropReason;

/// The entry of `drop` in the list of kinds.
pub const KIND: Kind = Kind {
    name: "drop",
    summary: "discards datagrams; the ledger counts them as `discarded`",
    settings: &[],
    example: r#"[[route]]
destination = "0.0.0.0:9999"
handler = "drop"
"#,
    read: |_| Some(Box::new(Drop)),
};

#[derive(Debug)]
struct Drop;

impl HandlerSpec for Drop {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn describe(&self) -> String {
        "drops it, counted as `discarded`".to_owned()
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(Drop))
    }
}

impl Handler for Drop {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        cx.drop_run(0, batch.len(), DropReason::Discarded);
    }
}
