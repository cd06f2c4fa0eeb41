//! The daemon as a service: signals, systemd's notifications and its watchdog.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Turns signals into commands. A second SIGTERM or SIGINT ends the process at once.
pub fn signals() -> io::Result<Receiver<Command>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let command = if signal == SIGHUP { Command::Reload } else { Command::Stop };
            if sender.send(command).is_err() || (stopping && command == Command::Stop) {
                if let Err(e) = signal_hook::low_level::emulate_default_handler(signal) {
                    log::error!("cannot end on signal {signal}: {e}");
                }
                return;
            }
            stopping |= command == Command::Stop;
        }
    })?;
    Ok(receiver)
}

/// systemd's notification socket; silent where there is none.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    last_alive: Option<Instant>,
    last_status: String,
}

impl Notifier {
    /// Reads the watchdog's time from the environment.
    pub fn from_env() -> Self {
        Notifier { watchdog: sd_notify::watchdog_enabled(), last_alive: None, last_status: String::new() }
    }

    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(e) => log::warn!("cannot read the monotonic clock: {e}"),
        }
    }

    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line of `systemctl status`; sent only when it changes.
    pub fn status(&mut self, text: &str) {
        if self.last_status != text {
            self.last_status = text.to_owned();
            send(&[NotifyState::Status(text)]);
        }
    }

    /// Tells the watchdog that frames are judged; to be called often, sends a third of its time apart.
    pub fn alive(&mut self) {
        let Some(limit) = self.watchdog else { return };
        if self.last_alive.is_none_or(|at| at.elapsed() >= limit / 3) {
            self.last_alive = Some(Instant::now());
            send(&[NotifyState::Watchdog]);
        }
    }

    /// How often [`Notifier::alive`] must be called at least.
    pub fn alive_interval(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(10), |limit| limit / 4)
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {e}");
    }
}
