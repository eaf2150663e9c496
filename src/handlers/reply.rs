//! `reply`: replies to every datagram with the same bytes, unless they are too many for a small request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reply_settings::{self, ALLOW_LOW_PORTS, REPLY_TO_GROUPS, TTL};
use crate::config::diagnostics::Mistake;
use crate::config::kind::{
    BuildContext, BuildError, Form, HandlerSpec, Kind, Needs, Optional, Setting,
};
use crate::config::section::Section;
use crate::config::value;
use crate::dispatch::handler::{Batch, Context, Handler};
use crate::dispatch::outbox::RUN_MAX_BYTES;
use crate::dispatch::reply_policy::ReplyPolicy;
use crate::dispatch::verdict::{DropReason, Verdict};

/// The entry of `reply` in the list of kinds.
pub const KIND: Kind = Kind {
    name: "reply",
    summary: "replies to each datagram with the same bytes, from the address that it was sent to",
    settings: &[
        &TEXT,
        &HEX,
        &FILE,
        &AMPLIFICATION_MAX,
        &ALLOW_LOW_PORTS,
        &REPLY_TO_GROUPS,
        &TTL,
    ],
    example: r#"[[route]]
destination = "0.0.0.0:1234"
handler = "greeting"

[handler.greeting]
kind = "reply"
text = "hello\n"
"#,
    read,
};

const TEXT: Setting<Vec<u8>, Optional> = Setting::custom("text", Form::Text("text"), |text| {
    limited(value::string(text)?.into_bytes())
})
.optional("one of the three")
.meaning("the reply, as UTF-8");

const HEX: Setting<Vec<u8>, Optional> = Setting::custom("hex", Form::Text("hex digits"), |text| {
    limited(value::hex(text)?)
})
.optional("one of the three")
.meaning("the reply, as bytes");

const FILE: Setting<PathBuf, Optional> = Setting::custom("file", Form::Text("path"), value::path)
    .optional("one of the three")
    .meaning("file whose contents at start are the reply; relative to the configuration file");

/// The default is the limit that QUIC has until it has validated the sender's address (RFC 9000, section 8.1).
const AMPLIFICATION_MAX: Setting<u32> = Setting::integer(
    "amplification_max",
    1..=RUN_MAX_BYTES as u64,
)
.default(3)
.meaning(
    "largest size of a reply, as a multiple of the request; a larger reply is not sent, because the source may be forged",
);

fn read(section: &mut Section<'_>) -> Option<Box<dyn HandlerSpec>> {
    let reply_policy = reply_settings::read(section);
    let amplification_max = section.get(&AMPLIFICATION_MAX);
    let given = section.exactly_one(&[TEXT.key, HEX.key, FILE.key]);
    let text = section.find(&TEXT);
    let hex = section.find(&HEX);
    let file = read_file(section);
    given?;
    let bytes = text.or(hex).or(file)?;
    Some(Box::new(FixedReply {
        bytes: bytes.into(),
        amplification_max,
        reply_policy,
    }))
}

fn read_file(section: &mut Section<'_>) -> Option<Vec<u8>> {
    let written = section.find(&FILE)?;
    let path = section.base_dir().join(written);
    section.accept(FILE.key, file_bytes(&path).and_then(limited))
}

/// Refuses more bytes than one datagram can carry.
fn limited(bytes: Vec<u8>) -> Result<Vec<u8>, Mistake> {
    check_length(bytes.len() as u64)?;
    Ok(bytes)
}

fn check_length(len: u64) -> Result<(), Mistake> {
    if len > u64::from(RUN_MAX_BYTES) {
        return Err(Mistake::new(format!(
            "{len} bytes do not fit a datagram, which holds {RUN_MAX_BYTES}"
        )));
    }
    Ok(())
}

fn file_bytes(path: &Path) -> Result<Vec<u8>, Mistake> {
    let failed = |error| {
        Mistake::new(format!("cannot read {}: {error}", path.display()))
            .hint("a relative path starts at the configuration file's directory")
    };
    // The size is checked first, so that neither a device nor a huge file is read whole.
    let data = fs::metadata(path).map_err(failed)?;
    if !data.is_file() {
        return Err(Mistake::new(format!("{} is not a file", path.display())));
    }
    check_length(data.len())?;
    fs::read(path).map_err(failed)
}

#[derive(Debug, Clone)]
struct FixedReply {
    bytes: Arc<[u8]>,
    amplification_max: u32,
    reply_policy: ReplyPolicy,
}

impl HandlerSpec for FixedReply {
    fn needs(&self) -> Needs {
        Needs {
            source: true,
            destination: true,
            ttl: self.reply_policy.ttl.is_none(),
            ..Needs::NOTHING
        }
    }

    fn beside(&self) -> &[u8] {
        &self.bytes
    }

    fn describe(&self) -> String {
        format!(
            "replies with {} bytes, to requests of at least {}",
            self.bytes.len(),
            self.request_min()
        )
    }

    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        Ok(Box::new(self.clone()))
    }
}

impl FixedReply {
    /// Returns the size of the smallest request that gets a reply, in bytes.
    fn request_min(&self) -> usize {
        self.bytes.len().div_ceil(self.amplification_max as usize)
    }
}

impl Handler for FixedReply {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        batch.for_each(cx, |datagram, cx| {
            if datagram.payload.len() < self.request_min() {
                return Verdict::Dropped(DropReason::Amplification);
            }
            cx.reply(datagram, &self.bytes, &self.reply_policy)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is too long is refused by its own size.
    #[test]
    fn a_long_file_is_refused_by_its_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(5_000_000).unwrap();
        let mistake = file_bytes(file.path()).unwrap_err();
        assert_eq!(
            mistake.message,
            "5000000 bytes do not fit a datagram, which holds 65507"
        );
    }
}
