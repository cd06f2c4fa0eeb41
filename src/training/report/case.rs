//! A picture and what was said of it.

use std::path::PathBuf;

use crate::model::Verdict;

/// One judged picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub path: PathBuf,
    pub outlier: bool,
    pub verdict: Verdict,
}
