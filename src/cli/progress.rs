//! Progress for programs: lines on standard error.

use std::io::{self, Write};

use indicatif::{ProgressDrawTarget, TermLike};

use crate::page::child::{PROGRESS, WITH_PROGRESS};

/// Writes every state as a line that begins with [`PROGRESS`].
#[derive(Debug)]
pub struct Lines;

impl Lines {
    pub const TEMPLATE: &str = "{msg} {pos} of {len}";
    const LINES_A_SECOND: u8 = 2;

    /// Whether they are wanted.
    pub fn are_wanted() -> bool {
        std::env::var_os(WITH_PROGRESS).is_some()
    }

    pub fn target() -> ProgressDrawTarget {
        ProgressDrawTarget::term_like_with_hz(Box::new(Lines), Lines::LINES_A_SECOND)
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        200
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        match line.trim() {
            "" => Ok(()),
            text => writeln!(io::stderr(), "{PROGRESS}{text}"),
        }
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.write_line(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
