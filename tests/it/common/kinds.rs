//! Kinds of handlers for tests of the configuration. They read settings and do nothing else.

use udispatch::config::kind::{
    BuildContext, BuildError, Form, HandlerSpec, Kind, ListSetting, Needs, Optional, Required,
    Setting, Upstream,
};
use udispatch::config::section::Section;
use udispatch::config::value;
use udispatch::dispatch::handler::Handler;

/// A kind without settings, one with a required setting, and one with settings that exclude each other.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "echo",
        summary: "answers each datagram with itself",
        settings: &[&TTL],
        example: "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n",
        read: |section| {
            let ttl = section.find(&TTL);
            spec(format!("echo {ttl:?}"), Vec::new())
        },
    },
    Kind {
        name: "print",
        summary: "prints each datagram",
        settings: &[],
        example: "[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"print\"\n",
        read: |_| spec("print".to_owned(), Vec::new()),
    },
    Kind {
        name: "forward",
        summary: "sends each datagram on to one upstream or several",
        settings: &[&UPSTREAMS, &PICK],
        example: "[[route]]\ndestination = \"127.0.0.1:2055\"\nhandler = \"collectors\"\n\n\
            [handler.collectors]\nkind = \"forward\"\n\
            upstreams = [\"10.0.0.1:2055\", \"collector.example:2055\"]\n",
        read: read_forward,
    },
    Kind {
        name: "reply",
        summary: "answers with something fixed",
        settings: &[&TEXT, &HEX],
        example: "[[route]]\ndestination = \"127.0.0.1:7\"\nhandler = \"hello\"\n\n\
            [handler.hello]\nkind = \"reply\"\ntext = \"hello\"\n",
        read: |section| {
            let text = section.find(&TEXT);
            let hex = section.find(&HEX);
            section.exactly_one(&[TEXT.key, HEX.key])?;
            spec(format!("reply {:?}", text.or(hex)?), Vec::new())
        },
    },
];

const TTL: Setting<u8, Optional> = Setting::integer("ttl", 1..=255)
    .optional("received - 1")
    .meaning("The TTL of answers.");

const UPSTREAMS: ListSetting<Upstream, Required> =
    Setting::custom("upstreams", Form::Text("\"address:port\""), value::upstream)
        .required()
        .meaning("Where to send. Names are resolved at start.")
        .list();

const PICK: Setting<&str> = Setting::choice("pick", &[("all", "all"), ("random", "random")])
    .default("all")
    .meaning("Which of them get a datagram.");

const TEXT: Setting<String, Optional> = Setting::custom("text", Form::Text("text"), value::string)
    .optional("")
    .meaning("The answer as text; this or `hex`.");

const HEX: Setting<String, Optional> = Setting::custom("hex", Form::Text("text"), value::string)
    .optional("")
    .meaning("The answer in hexadecimal digits; this or `text`.");

fn read_forward(section: &mut Section<'_>) -> Option<Box<dyn HandlerSpec>> {
    let upstreams = section.require_list(&UPSTREAMS);
    let pick = section.get(&PICK);
    spec(format!("forward {pick}"), upstreams?)
}

fn spec(what: String, upstreams: Vec<Upstream>) -> Option<Box<dyn HandlerSpec>> {
    Some(Box::new(Said { what, upstreams }))
}

/// The settings that the file gave, from which no handler can be built.
#[derive(Debug)]
struct Said {
    what: String,
    upstreams: Vec<Upstream>,
}

impl HandlerSpec for Said {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    fn describe(&self) -> String {
        self.what.clone()
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Err(BuildError(
            "a test of the configuration builds nothing".to_owned(),
        ))
    }
}
