//! Changes one key of a config file, and leaves all else of it as it is.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Config, MAX_BYTES};
use crate::fs;

/// Why a key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot change {}: {reason}", path.display())]
    Unfit { path: PathBuf, reason: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Sets a key in the file, in one replacement; comments and layout stay. Nothing is written that would not be read.
///
/// # Errors
/// As [`with_key`]; the file cannot be read or written, or is no good config then.
pub fn set_key(path: &Path, section: &str, key: &str, value: &str) -> Result<(), Error> {
    change(path, |text| with_key(text, section, key, value), Config::check)
}

/// Replaces the file by what `edit` makes of its text, if that is a config and passes `check`.
pub(super) fn change(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<String, String>,
    check: impl FnOnce(&Config) -> Result<(), super::Error>,
) -> Result<(), Error> {
    let unfit = |reason: String| Error::Unfit { path: path.to_owned(), reason };
    let text = fs::read_text(path, MAX_BYTES).map_err(|e| unfit(e.to_string()))?;
    let new = edit(&text).map_err(unfit)?;
    Config::parse(path, &new).and_then(|config| check(&config)).map_err(|e| unfit(e.to_string()))?;
    let write = |source| Error::Write { path: path.to_owned(), source };
    // A link stays one.
    let target = path.canonicalize().map_err(write)?;
    fs::replace(&target, new.as_bytes()).map_err(write)
}

/// The text with `key` of `[section]` set to `value`, which is written as TOML has it: in place of the value that is
/// there, else on a line of its own below the section's name, else in a new section at the end.
///
/// # Errors
/// The text is no TOML, or holds the section in a way that this cannot change: as `section = { … }` or `section.key`.
pub fn with_key(text: &str, section: &str, key: &str, value: &str) -> Result<String, String> {
    let table = DeTable::parse(text).map_err(|e| e.message().trim().to_owned())?;
    let there = table.get_ref().get(section).and_then(|section| match section.get_ref() {
        DeValue::Table(table) => table.get(key).map(|value| value.span()),
        _ => None,
    });
    let mut new = text.to_owned();
    let line = format!("{key} = {value}\n");
    let header = format!("[{section}]");
    let is_header = |line: &&str| line.split('#').next().is_some_and(|line| line.trim() == header);
    if let Some(span) = there {
        new.replace_range(span, value);
    } else if let Some(found) = text.split_inclusive('\n').find(is_header) {
        let end = found.as_ptr() as usize - text.as_ptr() as usize + found.len();
        let before = if found.ends_with('\n') { "" } else { "\n" };
        new.insert_str(end, &format!("{before}{line}"));
    } else {
        let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        new.push_str(&format!("{before}\n{header}\n{line}"));
    }
    // Where a text in quotes looks like a section, or the section is written otherwise, something else has changed.
    let parse = |text: &str| text.parse::<toml::Table>().map_err(|e| e.message().trim().to_owned());
    let (mut wanted, wanted_value) = (parse(text)?, parse(&format!("value = {value}"))?);
    let of = wanted.entry(section).or_insert_with(|| toml::Table::new().into());
    if let (Some(of), Some(value)) = (of.as_table_mut(), wanted_value.get("value")) {
        of.insert(key.to_owned(), value.clone());
    }
    match parse(&new) {
        Ok(found) if found == wanted => Ok(new),
        _ => Err(format!("it has {header} in an unusual form: change {key} by hand")),
    }
}

#[cfg(test)]
mod tests {
    use super::{set_key, with_key};

    #[test]
    fn all_else_stays() {
        let set = |text: &str| with_key(text, "decision", "threshold", "0.25");
        let cases = [
            ("", "\n[decision]\nthreshold = 0.25\n"),
            ("# x\n[model]\npath = \"m\" # y", "# x\n[model]\npath = \"m\" # y\n\n[decision]\nthreshold = 0.25\n"),
            ("[decision] # z\n\nclear-after = 3\n", "[decision] # z\nthreshold = 0.25\n\nclear-after = 3\n"),
            ("[decision]", "[decision]\nthreshold = 0.25\n"),
            (
                "[decision]\n# why\nthreshold=1e-3  # because\nraise-after = 2\n[gpio]\nline = 4\n",
                "[decision]\n# why\nthreshold=0.25  # because\nraise-after = 2\n[gpio]\nline = 4\n",
            ),
            ("decision.threshold = 1\n", "decision.threshold = 0.25\n"),
            ("decision = { threshold = 0.5 }\n", "decision = { threshold = 0.25 }\n"),
            (
                "[a]\nb = '''\n[decision]\n'''\n[decision]\nthreshold = 1",
                "[a]\nb = '''\n[decision]\n'''\n[decision]\nthreshold = 0.25",
            ),
        ];
        for (old, new) in cases {
            assert_eq!(set(old).as_deref(), Ok(new));
        }
    }

    #[test]
    fn what_cannot_be_changed_is_left() {
        for text in [
            "decision = {}\n",
            "[a]\nb = '''\n[decision]\n'''\n",
            "decision = 3\n",
            "[decision",
            "decision.clear-after = 1\n",
        ] {
            assert!(with_key(text, "decision", "threshold", "0.25").is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_config_that_can_be_read_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door.toml");
        let old = "# mine\n[model]\npath = \"m\"\n[decision] # here\nraise-after = 2\n";
        std::fs::write(&path, old).unwrap();
        set_key(&path, "decision", "threshold", "0.25").unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert_eq!(new, old.replace("here\n", "here\nthreshold = 0.25\n"));
        assert!(set_key(&path, "decision", "threshold", "7.0").is_err());
        assert!(set_key(&path, "decision", "treshold", "0.5").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), new);
    }
}
