//! The items that a program with its own kind of handler needs.

pub use crate::config::diagnostics::Mistake;
pub use crate::config::kind::{
    AnySetting, BuildContext, BuildError, Capped, Fixed, Form, HandlerSpec, Kind, ListSetting,
    Needs, Optional, Required, Setting, SettingTable,
};
pub use crate::config::section::Section;
pub use crate::config::value;
pub use crate::datagram::Datagram;
pub use crate::dispatch::handler::{Batch, Context, Handler};
pub use crate::dispatch::reply_policy::ReplyPolicy;
pub use crate::dispatch::sink;
pub use crate::dispatch::verdict::{DropReason, Verdict};
pub use crate::handlers::KINDS;
