//! `demo --page`: the daemon on the drawn scene, and its web page.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::common;
use crate::cli::error::{Error, exit};
use crate::config::Config;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long both may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the daemon and the page until SIGINT or SIGTERM, or until one of them ends.
pub fn serve(config: &Config, address: SocketAddr) -> Result<ExitCode, Error> {
    let stop = common::stop_flag()?;
    common::print("page     the daemon watches the scene again and again; Ctrl-C ends both")?;
    let mut daemon = Running::start("run", &[], config.path())?;
    let mut page = Running::start("page", &["--listen", &address.to_string()], config.path())?;
    while !stop.load(Ordering::Relaxed) {
        for running in [&mut daemon, &mut page] {
            if let Some(status) = running.child.try_wait().map_err(|e| running.cannot(e))? {
                // Ctrl-C reaches all at once.
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let message = format!("`outlierd {}` has ended by itself: {status}", running.command);
                return Err(Error::new(exit::SOFTWARE, message));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(ExitCode::SUCCESS)
}

/// A command of this program, which ends with this.
struct Running {
    command: &'static str,
    child: Child,
}

impl Running {
    fn start(command: &'static str, more: &[&str], config: &Path) -> Result<Running, Error> {
        let cannot = |e| Error::new(exit::SOFTWARE, format!("cannot start `outlierd {command}`: {e}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut child = Command::new(program);
        child.arg(command).args(more).arg("--config").arg(config).stdin(Stdio::null());
        if std::env::var_os("OUTLIERD_LOG").is_none() {
            child.env("OUTLIERD_LOG", "warn");
        }
        Ok(Running { command, child: child.spawn().map_err(cannot)? })
    }

    fn cannot(&self, error: std::io::Error) -> Error {
        Error::new(exit::SOFTWARE, format!("cannot wait for `outlierd {}`: {error}", self.command))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
