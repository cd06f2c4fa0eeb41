//! `camera.source`: where frames come from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::text::without_passwords;

/// Where frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `v4l:/dev/video0`
    V4l(PathBuf),
    /// `folder:/path`, or `folder:/path/list.txt`, a list of paths relative to the list.
    Folder(PathBuf),
    /// `pipe:/path`: a FIFO, or a file, with a stream of MJPEG or YUV4MPEG2.
    Pipe(PathBuf),
    /// `exec:program argument ...`: a command that writes such a stream to its standard output. Words are split as by
    /// a shell, which takes no other part in it.
    Exec(Vec<String>),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => {}
            Some(("v4l", path)) => return Ok(Source::V4l(path.into())),
            Some(("folder", path)) => return Ok(Source::Folder(path.into())),
            Some(("pipe", path)) => return Ok(Source::Pipe(path.into())),
            Some(("exec", command)) => {
                return match shlex::split(command).filter(|argv| !argv.is_empty()) {
                    Some(argv) => Ok(Source::Exec(argv)),
                    None => Err("the command of source \"exec:...\" is empty, or a quote in it is not closed".into()),
                };
            }
            Some(_) => {}
        }
        let shown = without_passwords(text);
        let hint = match text.split_once("://") {
            Some(_) => "; an address is read by a command, such as \"exec:ffmpeg -i ADDRESS -c:v mjpeg -f mjpeg -\"",
            None => "",
        };
        Err(format!(
            "source {shown:?} is none of \"v4l:/dev/video0\", \"folder:/path\", \"pipe:/path\" and \"exec:command\"{hint}"
        ))
    }
}

/// As it is written, but for passwords in URLs.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::V4l(path) => write!(f, "v4l:{}", path.display()),
            Source::Folder(path) => write!(f, "folder:{}", path.display()),
            Source::Pipe(path) => write!(f, "pipe:{}", path.display()),
            Source::Exec(argv) => {
                let words =
                    argv.iter().map(|word| shlex::try_quote(word).map_or(word.as_str().into(), |quoted| quoted));
                write!(f, "exec:{}", without_passwords(&words.collect::<Vec<_>>().join(" ")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_into_words_and_shown_without_passwords() {
        let source: Source = "exec:ffmpeg -i 'rtsp://u:p w@cam/1' -f mjpeg -".parse().unwrap();
        assert_eq!(
            source,
            Source::Exec(["ffmpeg", "-i", "rtsp://u:p w@cam/1", "-f", "mjpeg", "-"].map(Into::into).into())
        );
        let source: Source = "exec:ffmpeg -i rtsp://u:secret@cam/1 -f mjpeg -".parse().unwrap();
        assert_eq!(source.to_string(), "exec:ffmpeg -i rtsp://u:***@cam/1 -f mjpeg -");
        for wrong in ["exec:", "exec:  ", "exec:a 'b", "rtsp://u:secret@cam/1", "pipe:", "door"] {
            let error = wrong.parse::<Source>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
