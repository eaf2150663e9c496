//! A modelled connection: two streams of messages, each of which arrives some time after it was sent.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use udispatch::dispatch::random::Random;
use udispatch::takeover::error::WireError;
use udispatch::takeover::protocol::Message;

/// An item that can be read from a stream.
#[derive(Debug, Clone)]
pub enum Item {
    Message(Message),
    Garbage,
    Error,
}

/// One direction of a connection.
#[derive(Default)]
pub struct Pipe {
    items: VecDeque<(Duration, Item)>,
    last: Duration,
    /// When the reader finds the end, once the writer has closed.
    end: Option<Duration>,
    /// Whether the reader has closed.
    is_unread: bool,
}

/// Both directions of a connection.
#[derive(Default)]
pub struct Connection {
    pub to_server: Pipe,
    pub to_client: Pipe,
}

impl Pipe {
    /// Writes a message. It may come late or not at all, be replaced by another one, or have another one before or
    /// after it.
    pub fn write(
        &mut self,
        now: Duration,
        message: Message,
        random: &mut Random,
        is_hostile: bool,
    ) {
        let soon = now + Duration::from_micros(random.below(3_000) as u64);
        let made_up = other(&message, random);
        let message = Item::Message(message);
        match random.below(28) {
            0 if is_hostile => {
                let late = now + Duration::from_millis(random.below(20_000) as u64);
                self.push(late, message);
            }
            1 if is_hostile => {}
            2 if is_hostile => self.push(soon, Item::Garbage),
            3 if is_hostile => self.push(soon, Item::Error),
            4 if is_hostile => self.push(soon, made_up),
            5 if is_hostile => {
                self.push(now, made_up);
                self.push(soon, message);
            }
            6 if is_hostile => {
                self.push(soon, message);
                self.push(soon, made_up);
            }
            _ => self.push(soon, message),
        }
    }

    fn push(&mut self, at: Duration, item: Item) {
        self.last = self.last.max(at);
        self.items.push_back((self.last, item));
    }

    /// The writer closes. The reader finds that after all that was written.
    pub fn close_writer(&mut self, now: Duration) {
        self.last = self.last.max(now);
        self.end.get_or_insert(self.last);
    }

    /// The reader closes, so nothing more can be written.
    pub fn close_reader(&mut self) {
        self.is_unread = true;
        self.items.clear();
    }

    /// Whether nothing more can be written.
    pub fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// When the reader finds the end.
    pub fn end(&self) -> Option<Duration> {
        self.end
    }

    /// When there is something to read.
    pub fn readable_at(&self) -> Option<Duration> {
        self.items.front().map(|(at, _)| *at).or(self.end)
    }

    /// Reads what has arrived by now, if anything has.
    pub fn read(&mut self, now: Duration) -> Option<Result<Message, WireError>> {
        match self.items.front() {
            Some((at, _)) if *at > now => None,
            Some(_) => self.items.pop_front().map(|(_, item)| match item {
                Item::Message(message) => Ok(message),
                Item::Garbage => Err(WireError::Malformed("garbage".to_owned())),
                Item::Error => Err(WireError::System(io::Error::other("a failed call"))),
            }),
            None => self
                .end
                .filter(|end| *end <= now)
                .map(|_| Err(WireError::Closed)),
        }
    }
}

/// Another message than this one. `Released` and `Started` are never made up: the protocol does not defend against a
/// process that lies about them.
fn other(message: &Message, random: &mut Random) -> Item {
    let reason = "made up".to_owned();
    let messages = [
        Message::Hello { version: 1 },
        Message::Refused { reason },
        Message::Manifest,
        Message::Ready,
        Message::FinalCounts,
    ];
    let picked = &messages[random.below(messages.len())];
    if picked.kind() == message.kind() {
        return Item::Garbage;
    }
    Item::Message(picked.clone())
}
