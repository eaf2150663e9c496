//! The exit code of every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It could not; standard error says why.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration file is wrong (EX_CONFIG of sysexits.h): restarting will not help.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
