//! The command line: one file per command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod bench;
pub mod camera;
pub mod check;
pub mod collect;
pub mod common;
pub mod compare;
pub mod demo;
pub mod error;
pub mod eval;
pub mod events;
pub mod fit;
pub mod grid;
pub mod help;
pub mod import_sklearn;
pub mod inspect;
mod instances;
pub mod learn;
pub mod page;
mod progress;
pub mod quantize;
pub mod release;
pub mod run;
pub mod score;
pub mod status;
pub mod tune;

use error::{Error, exit};

/// Watches a camera and says when something is not what it was taught.
#[derive(Debug, Parser)]
#[command(name = "outlierd", version, about, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "`outlierd help topics`: getting started, configuration, cameras, calibration, files and more.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Release(release::Args),
    Check(check::Args),
    Camera(camera::Args),
    Collect(collect::Args),
    Fit(fit::Args),
    Eval(eval::Args),
    Score(score::Args),
    Compare(compare::Args),
    ImportSklearn(import_sklearn::Args),
    Quantize(quantize::Args),
    Inspect(inspect::Args),
    Events(events::Args),
    Status(status::Args),
    Page(page::Args),
    Learn(learn::Args),
    Tune(tune::Args),
    Bench(bench::Args),
    Completions(CompletionsArgs),
    Help(help::Args),
    #[command(hide = true)]
    Man(ManArgs),
}

/// Prints a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd completions bash > /etc/bash_completion.d/outlierd")]
struct CompletionsArgs {
    shell: clap_complete::Shell,
}

/// Prints the man page, or that of one command, as roff.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd man fit | man -l -")]
struct ManArgs {
    command: Option<String>,
}

fn man(args: ManArgs) -> Result<ExitCode, Error> {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.command {
        None => cli,
        Some(name) => match cli.find_subcommand(name) {
            Some(command) => command.clone(),
            None => return Err(Error::new(exit::USAGE, format!("no command {name}; see `outlierd --help`"))),
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|e| Error::new(exit::SOFTWARE, format!("cannot make the man page: {e}")))?;
    common::print_text(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Parses the process's arguments and runs one command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    common::init_log();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            if !error.message.is_empty() {
                common::complain(&error);
            }
            ExitCode::from(error.code)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Release(args) => release::run(args),
        Command::Check(args) => check::run(args),
        Command::Camera(args) => camera::run(args),
        Command::Collect(args) => collect::run(args),
        Command::Fit(args) => fit::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Score(args) => score::run(args),
        Command::Compare(args) => compare::run(args),
        Command::ImportSklearn(args) => import_sklearn::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Events(args) => events::run(args),
        Command::Status(args) => status::run(args),
        Command::Page(args) => page::run(args),
        Command::Learn(args) => learn::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "outlierd", &mut script);
            common::print_text(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Help(args) => help::run(args, Cli::command()),
        Command::Man(args) => man(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound_and_every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        assert!(help::topics().all(|(name, ..)| name != "topics" && command.find_subcommand(name).is_none()));
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(|h| h.to_string()).unwrap_or_default();
            assert!(help.contains(&format!("outlierd {}", sub.get_name())), "{} has no example", sub.get_name());
        }
    }
}
