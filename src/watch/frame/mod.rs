//! What frames mean: which are scored, which raise and clear events, what has drifted. Pure: no I/O, time is passed in.

pub mod change_filter;
pub mod decision;
pub mod drift;
pub mod light;
pub mod machine;
pub mod pace;
pub mod schedule;
pub mod status;
pub mod threshold;
