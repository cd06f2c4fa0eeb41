//! `demo`.
pub mod scene;
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd demo")]
pub struct Args {}
pub fn run(_: Args) -> Result<std::process::ExitCode, super::Error> { Ok(std::process::ExitCode::SUCCESS) }
