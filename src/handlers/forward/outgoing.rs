//! A train on its way to the upstreams.

use crate::datagram::Train;
use crate::dispatch::handler::{Batch, Context};
use crate::dispatch::verdict::DropReason;

/// A train, or a single datagram, on its way to one or more upstreams.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// The train.
    pub train: &'a Train,
    /// The index of its first datagram in the batch.
    pub index: u32,
    /// The batch that the train belongs to.
    pub batch: &'a Batch<'a>,
    /// The TTL to send with: the received one less one, or a fixed one. `None` if the kernel does not report it.
    pub ttl: Option<u8>,
}

impl Outgoing<'_> {
    /// Returns the bytes of the train.
    pub fn bytes(&self) -> &[u8] {
        self.batch.bytes(self.train.span)
    }

    /// Forwards each datagram by itself with `pass`, and drops those for which it fails.
    pub fn pass_singly(
        &self,
        cx: &mut Context<'_>,
        mut pass: impl FnMut(&Outgoing<'_>, &mut Context<'_>) -> Result<(), DropReason>,
    ) {
        for (index, datagram) in (self.index..).zip(self.train.pieces()) {
            let single = Outgoing {
                train: &datagram,
                index,
                ..*self
            };
            if let Err(reason) = pass(&single, cx) {
                single.drop_all(reason, cx);
            }
        }
    }

    /// Drops all datagrams of the train.
    pub fn drop_all(&self, reason: DropReason, cx: &mut Context<'_>) {
        cx.drop_run(self.index, self.train.datagrams(), reason);
    }
}
