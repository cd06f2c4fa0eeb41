//! Progress for programs: lines on standard error.

use std::io::{self, Write};

use indicatif::{ProgressDrawTarget, TermLike};

/// Writes every state as a line that begins with [`Lines::PREFIX`].
#[derive(Debug)]
pub struct Lines;

impl Lines {
    pub const PREFIX: &str = "progress: ";
    pub const TEMPLATE: &str = "{msg} {pos} of {len}";
    const LINES_A_SECOND: u8 = 2;

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
            text => writeln!(io::stderr(), "{}{text}", Lines::PREFIX),
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
