//! Two UDP sockets on one port, 127.0.0.1 and 0.0.0.0, each with a handler of its own that prints what it gets.
//!
//! ```sh
//! cargo run --example two_addresses            # or with another port: … two_addresses 5000
//! echo hello | nc -u -w1 127.0.0.1 1234        # loopback: hello
//! echo hello | nc -u -w1 127.0.0.2 1234        # everywhere else: hello
//! ```
//!
//! It only uses the library: a kind of handler of one's own, a configuration as text, and a supervisor.

use std::path::Path;
use std::process::ExitCode;

use udispatch::config::Config;
use udispatch::config::kind::{
    BuildContext, BuildError, Form, HandlerSpec, Kind, Needs, Required, Setting,
};
use udispatch::config::value;
use udispatch::dispatch::handler::{Batch, Context, Handler};
use udispatch::dispatch::verdict::Verdict;
use udispatch::supervisor::Supervisor;

/// Prints each datagram after a word of its own.
#[derive(Debug, Clone)]
struct Say(String);

const WORD: Setting<String, Required> = Setting::custom("word", Form::Text("text"), value::string)
    .required()
    .meaning("what stands before it");

const SAY: Kind = Kind {
    name: "say",
    summary: "prints each datagram behind a word",
    settings: &[&WORD],
    example: "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"it\"\n[handler.it]\nkind = \"say\"\nword = \"it\"\n",
    read: |section| Some(Box::new(Say(section.require(&WORD)?))),
};

impl HandlerSpec for Say {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }
    fn describe(&self) -> String {
        format!("prints it behind {:?}", self.0)
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
    let port = std::env::args().nth(1).unwrap_or_else(|| "1234".to_owned());
    let text = format!(
        r#"
            [daemon]
            workers = 1

            [[route]]
            destination = "127.0.0.1:{port}"
            handler = "loopback"

            [[route]]
            destination = "0.0.0.0:{port}"
            handler = "everywhere"

            [handler.loopback]
            kind = "say"
            word = "loopback"

            [handler.everywhere]
            kind = "say"
            word = "everywhere else"
        "#
    );
    let config = match Config::parse(Path::new("two_addresses"), &text, &[SAY]) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}\nusage: two_addresses [PORT]");
            return ExitCode::from(2);
        }
    };
    match Supervisor::start(config).and_then(|supervisor| {
        eprintln!("ready on port {port}; Ctrl-C ends it");
        supervisor.run()
    }) {
        Ok(ledger) => {
            ledger.into_iter().for_each(|ledger| eprint!("{ledger}"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
