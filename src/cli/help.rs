//! `help`: what `--help` of a command prints, or a topic of topics.txt, which outlierd(8) has too (cross/manual.sh).

use std::fmt::Write;
use std::process::ExitCode;

use super::common;
use super::error::{Error, exit};

const TOPICS: &str = include_str!("topics.txt");

/// Prints the help of a command, or a topic: `outlierd help topics` lists them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: outlierd help topics\n          outlierd help calibration\n          \
                        outlierd help camera snap")]
pub struct Args {
    /// A command, a topic, or `topics` [default: all commands]
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// Name, title and text of every topic, in the order of the manual.
pub fn topics() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let parts = TOPICS.strip_prefix("# ").unwrap_or(TOPICS).split("\n# ");
    parts.filter_map(|part| {
        let (heading, text) = part.split_once('\n')?;
        let (name, title) = heading.split_once(": ")?;
        Some((name, title, text.trim_end()))
    })
}

fn list() -> String {
    let mut list = String::from("Topics, each by `outlierd help TOPIC`; all of them are in outlierd(8):\n\n");
    for (name, title, _) in topics() {
        let _ = writeln!(list, "  {name:<12}  {title}");
    }
    list
}

/// Of the program `outlierd`.
pub fn run(args: Args, outlierd: clap::Command) -> Result<ExitCode, Error> {
    let text = match args.words.as_slice() {
        [word] if word == "topics" => Some(list()),
        [word] => topics().find(|(name, ..)| name == word).map(|(_, title, text)| format!("{title}\n\n{text}\n")),
        _ => None,
    };
    if let Some(text) = text {
        common::print_text(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = ["outlierd"].into_iter().chain(args.words.iter().map(String::as_str)).chain(["--help"]);
    match outlierd.try_get_matches_from(line) {
        Err(help) if !help.use_stderr() => {
            let _ = help.print();
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let message = format!(
                "no command or topic {:?}: see `outlierd --help` and `outlierd help topics`",
                args.words.join(" ")
            );
            Err(Error::new(exit::USAGE, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_well_formed() {
        assert_eq!(topics().count(), TOPICS.lines().filter(|line| line.starts_with("# ")).count());
        assert!(topics().all(|(_, title, text)| !text.is_empty() && !title.is_empty()));
        assert!(TOPICS.lines().all(|line| line.chars().count() < 80));
    }
}
