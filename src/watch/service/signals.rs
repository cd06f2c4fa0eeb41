//! Signals as commands to the watch.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A stop that comes again so soon is the same one: `timeout` and others signal the process and then its group.
const SAME_STOP: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Turns signals into commands. A second SIGTERM or SIGINT, a second or more after the first, ends the process at once.
pub fn signals() -> io::Result<Receiver<Command>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stopping: Option<Instant> = None;
        for signal in signals.forever() {
            let command = if signal == SIGHUP { Command::Reload } else { Command::Stop };
            let again = command == Command::Stop && stopping.is_some_and(|since| since.elapsed() >= SAME_STOP);
            // While stopping, nobody may listen any more: the main thread ends the process.
            let unheard = sender.send(command).is_err() && stopping.is_none();
            if again || unheard {
                if let Err(e) = signal_hook::low_level::emulate_default_handler(signal) {
                    log::error!("cannot end on signal {signal}: {e}");
                }
                return;
            }
            if command == Command::Stop {
                stopping.get_or_insert_with(Instant::now);
            }
        }
    })?;
    Ok(receiver)
}

/// What is to be done when several commands wait: many reloads are one, and a stop comes before them.
pub fn latest(command: Command, commands: &Receiver<Command>) -> Command {
    commands.try_iter().fold(command, |kept, next| if next == Command::Stop { next } else { kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_that_wait_are_one_and_a_stop_comes_before_them() {
        use Command::{Reload, Stop};
        for (sent, taken) in [
            ([Reload, Reload, Reload], Reload),
            ([Reload, Stop, Reload], Stop),
            ([Reload, Reload, Stop], Stop),
            ([Stop, Reload, Reload], Stop),
        ] {
            let (sender, commands) = channel();
            sent.into_iter().for_each(|command| sender.send(command).unwrap());
            let first = commands.recv().unwrap();
            assert_eq!(latest(first, &commands), taken, "{sent:?}");
            assert!(commands.try_recv().is_err(), "{sent:?}");
        }
    }
}
