//! What a hook prints, as much of it as the daemon's own log is to have.

use std::io::{self, PipeReader, Read};

use crate::watch::events::printable;

/// Bytes of a run's output that go to the daemon's own log; the rest is thrown away.
const MAX_OUTPUT: usize = 4096;
/// And so many lines of them.
const MAX_LINES: usize = 40;
/// Characters of a failed run's last line that its error event quotes.
const MAX_QUOTE: usize = 200;
/// Reads of a pipe between two looks at the clock.
const DRAIN: usize = 64;

/// What a hook writes to stdout and stderr: the beginning is kept, the rest is counted.
#[derive(Debug, Default)]
pub struct Printed {
    kept: Vec<u8>,
    more: u64,
}

impl Printed {
    /// Takes what is there, at most so much at once that a flood does not hold up the limit.
    pub fn drain(&mut self, pipe: &mut PipeReader) {
        let mut buffer = [0; 4096];
        for _ in 0..DRAIN {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    let taken = read.min(MAX_OUTPUT - self.kept.len());
                    self.kept.extend_from_slice(&buffer[..taken]);
                    self.more += (read - taken) as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Without control characters: a hook must not write lines of its own into the journal.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let clean = |line: &str| printable(line.trim_end());
        text.lines().map(clean).filter(|line| !line.is_empty()).collect()
    }

    pub fn log(&self, program: &str) {
        let lines = self.lines();
        for line in lines.iter().take(MAX_LINES) {
            log::info!("hook {program}: {line}");
        }
        if lines.len() > MAX_LINES || self.more > 0 {
            log::info!("hook {program}: more output is not shown");
        }
    }

    /// `: the last line`, cut short; nothing where nothing was written.
    pub fn last_line(&self) -> String {
        let line = self.lines().pop().unwrap_or_default();
        let short: String = line.chars().take(MAX_QUOTE).collect();
        if short.is_empty() { short } else { format!(": {short}") }
    }
}
