//! TOML → typed configuration; every problem with file:line:column, the line, a caret and a hint.

pub mod kind;
pub mod section;
