//! `echo`: sends each datagram back to its sender.

use super::reply_settings::{self, ALLOW_LOW_PORTS, REPLY_TO_GROUPS, TTL};
use crate::config::kind::{BuildContext, BuildError, HandlerSpec, Kind, Needs};
use crate::dispatch::handler::{Batch, Context, Handler};
use crate::dispatch::reply_policy::ReplyPolicy;

/// The entry of `echo` in the list of kinds.
pub const KIND: Kind = Kind {
    name: "echo",
    summary: "sends each datagram back to its sender, from the address that it was sent to",
    settings: &[&ALLOW_LOW_PORTS, &REPLY_TO_GROUPS, &TTL],
    example: r#"[[route]]
destination = "127.0.0.1:1234"
handler = "echo"
"#,
    read: |section| Some(Box::new(Echo(reply_settings::read(section)))),
};

#[derive(Debug, Clone, Copy)]
struct Echo(ReplyPolicy);

impl HandlerSpec for Echo {
    fn needs(&self) -> Needs {
        Needs {
            source: true,
            destination: true,
            ttl: self.0.ttl.is_none(),
            ..Needs::NOTHING
        }
    }

    fn describe(&self) -> String {
        "sends it back".to_owned()
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(*self))
    }
}

impl Handler for Echo {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        batch.for_each(cx, |datagram, cx| cx.echo(datagram, &self.0));
    }
}
