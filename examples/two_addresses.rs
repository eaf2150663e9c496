//! Two UDP sockets on one port, 127.0.0.1 and 0.0.0.0, each with a handler of its own that prints what it gets.
//!
//! ```sh
//! cargo run --example two_addresses -- run examples/two_addresses.toml
//! echo hello | nc -u -w1 127.0.0.1 1234        # loopback: hello
//! echo hello | nc -u -w1 127.0.0.2 1234        # everywhere else: hello
//! ```
//!
//! It has one kind of handler, which is defined here. The library does the rest.

use std::process::ExitCode;

use udispatch::cli;
use udispatch::prelude::*;

/// Prints each datagram after a word of its own.
#[derive(Debug, Clone)]
struct Say(String);

const WORD: Setting<String, Required> = Setting::custom("word", Form::Text("text"), value::string)
    .required()
    .meaning("the word before each datagram");

const SAY: Kind = Kind {
    name: "say",
    summary: "prints each datagram after a word",
    settings: &[&WORD],
    example: "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"it\"\n[handler.it]\nkind = \"say\"\nword = \"it\"\n",
    read: |section| Some(Box::new(Say(section.require(&WORD)?))),
};

impl HandlerSpec for Say {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }
    fn describe(&self) -> String {
        format!("prints each datagram after {:?}", self.0)
    }
    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(self.clone()))
    }
}

impl Handler for Say {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        // A handler that may block should use a sink, as `print` does. For two sockets and a terminal, this is enough.
        batch.for_each(cx, |datagram, _| {
            let text = String::from_utf8_lossy(datagram.payload);
            println!("{}: {}", self.0, text.escape_debug());
            Verdict::Handled
        });
    }
}

fn main() -> ExitCode {
    cli::main(&[SAY])
}
