//! The exit codes of all commands.

use std::process::ExitCode;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Ok = 0,
    /// The command failed; standard error says why.
    Failure = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The configuration file is invalid (EX_CONFIG of sysexits.h), so a restart does not help.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
