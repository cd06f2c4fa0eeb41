//! A judged picture.

use std::path::PathBuf;

use crate::model::Verdict;

/// A picture of known class and its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub path: PathBuf,
    pub outlier: bool,
    pub verdict: Verdict,
}
