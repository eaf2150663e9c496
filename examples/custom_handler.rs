//! A complete daemon with a kind of handler of its own beside the built-in ones: `rot13` replies with every letter
//! moved by thirteen places.
//!
//! ```sh
//! cat > rot13.toml <<END
//! [[route]]
//! destination = "127.0.0.1:1234"
//! handler = "rot13"
//! END
//! cargo run --example custom_handler -- run rot13.toml
//! echo Hello | nc -u -w1 127.0.0.1 1234        # Uryyb
//! cargo run --example custom_handler -- handlers rot13
//! ```
//!
//! It needs three parts: a kind (name, settings, and how they are read), a handler spec (the facts that it needs, and
//! how each worker's handler is built) and a handler (what it does with a datagram). The command line, the checks,
//! `explain` and the ledger need no further code.

use std::process::ExitCode;

use udispatch::cli;
use udispatch::prelude::*;

const ROT13: Kind = Kind {
    name: "rot13",
    summary: "replies with every letter moved by a number of places in the alphabet",
    settings: &[&PLACES],
    example: "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"caesar\"\n\n\
              [handler.caesar]\nkind = \"rot13\"\nplaces = 3\n",
    read: |section| {
        let places = section.get(&PLACES);
        Some(Box::new(Rot {
            places,
            reply: Vec::new(),
        }))
    },
};

const PLACES: Setting<u8> = Setting::integer("places", 1..=25)
    .default(13)
    .meaning("number of places by which each letter moves");

#[derive(Debug, Clone)]
struct Rot {
    places: u8,
    /// The buffer is reused for each reply, because a handler on the data path allocates nothing.
    reply: Vec<u8>,
}

impl HandlerSpec for Rot {
    /// A reply is sent to the source, from the destination, and with a TTL that ends loops.
    fn needs(&self) -> Needs {
        Needs {
            source: true,
            destination: true,
            ttl: true,
            ..Needs::NOTHING
        }
    }

    fn describe(&self) -> String {
        format!("replies with every letter moved by {}", self.places)
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(self.clone()))
    }
}

impl Handler for Rot {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let places = self.places;
        batch.for_each(cx, |datagram, cx| {
            let moved = datagram.payload.iter().map(|byte| match byte {
                b'a'..=b'z' => (byte - b'a' + places) % 26 + b'a',
                b'A'..=b'Z' => (byte - b'A' + places) % 26 + b'A',
                other => *other,
            });
            self.reply.clear();
            self.reply.extend(moved);
            // The reply policy decides whether this sender may get a reply. The ledger counts each reason.
            cx.reply(datagram, &self.reply, &ReplyPolicy::default())
        });
    }
}

fn main() -> ExitCode {
    let mut kinds = KINDS.to_vec();
    kinds.push(ROT13);
    cli::main(&kinds)
}
