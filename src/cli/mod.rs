//! The command line: one file per command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit codes of sysexits.h.
pub mod exit {
    pub const USAGE: u8 = 64;
    pub const DATAERR: u8 = 65;
    pub const NOINPUT: u8 = 66;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const CANTCREAT: u8 = 73;
    pub const IOERR: u8 = 74;
    pub const CONFIG: u8 = 78;
}

/// A command's failure: what to print and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: u8,
    pub message: String,
}

impl Error {
    pub fn new(code: u8, message: impl std::fmt::Display) -> Self {
        Error { code, message: message.to_string() }
    }
}

/// Watches a camera and says when something is not what it was taught.
#[derive(Debug, Parser)]
#[command(name = "outlierd", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {}

/// Parses the process's arguments and runs one command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {}
}
