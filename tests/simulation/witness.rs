//! A handler that records what it gets, and drops some of it for a reason that the model can predict.

use std::cell::RefCell;
use std::net::SocketAddr;

use udispatch::config::kind::{
    BuildContext, BuildError, HandlerSpec, Kind, Needs, Required, Setting,
};
use udispatch::datagram::Datagram;
use udispatch::dispatch::handler::{Batch, Context, Handler};
use udispatch::dispatch::maglev::mix;
use udispatch::dispatch::verdict::{DropReason, Verdict};

/// What one witness got: its number, its caller, and the place of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub salt: u64,
    pub src: SocketAddr,
    pub offset: u32,
    pub len: u32,
}

thread_local! {
    /// What all witnesses of this thread got, in order. The test removes it after each turn.
    pub static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

/// The verdict of a witness on a datagram.
pub fn judge(seen: &Seen) -> Verdict {
    const REASONS: [DropReason; 2] = [DropReason::Amplification, DropReason::SinkFull];
    let hash = mix(seen.salt
        ^ u64::from(seen.len)
        ^ u64::from(seen.offset) << 20
        ^ u64::from(seen.src.port()) << 44);
    match hash % 3 {
        0 => Verdict::Dropped(REASONS[(hash >> 32) as usize % REASONS.len()]),
        _ => Verdict::Handled,
    }
}

const SALT: Setting<u64, Required> = Setting::integer("salt", 0..=u64::MAX >> 1)
    .required()
    .meaning("for the model");

const WHOLE: Setting<bool, Required> = Setting::boolean("whole")
    .required()
    .meaning("for the model");

pub const KIND: Kind = Kind {
    name: "witness",
    summary: "writes down what it is given",
    settings: &[&SALT, &WHOLE],
    example: "",
    read: |section| {
        let salt = section.require(&SALT);
        let whole = section.require(&WHOLE);
        Some(Box::new(Witness {
            salt: salt?,
            whole: whole?,
        }))
    },
};

/// With `whole`, it takes the batch in one piece and reports only the drops, as a handler may.
#[derive(Debug, Clone, Copy)]
struct Witness {
    salt: u64,
    whole: bool,
}

impl HandlerSpec for Witness {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn describe(&self) -> String {
        "writes it down".to_owned()
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(*self))
    }
}

impl Witness {
    fn see(&self, datagram: &Datagram<'_>) -> Verdict {
        assert_eq!(datagram.payload.len(), datagram.span.len as usize);
        let src = datagram.src();
        let offset = datagram.span.offset;
        let len = datagram.span.len;
        let seen = Seen {
            salt: self.salt,
            src,
            offset,
            len,
        };
        SEEN.with_borrow_mut(|all| all.push(seen));
        judge(&seen)
    }
}

impl Handler for Witness {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        for (index, datagram) in batch.datagrams().enumerate() {
            let verdict = self.see(&datagram);
            if !self.whole || verdict != Verdict::Handled {
                cx.verdict(index as u32, verdict);
            }
        }
    }
}
