//! Stages, the tap that is taken of them, and what becomes of a map.

use std::fmt;
use std::str::FromStr;

use super::error::Error;

/// A residual stage of a ResNet: the output of its last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Layer1,
    Layer2,
    Layer3,
    Layer4,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Layer1, Stage::Layer2, Stage::Layer3, Stage::Layer4];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer{}", *self as usize + 1)
    }
}

/// Where the feature is taken: one stage or several joined, in ascending order (`layer2+layer3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap(pub(super) Vec<Stage>);

impl Tap {
    /// None without a stage; the stages are sorted, doubles dropped.
    pub fn new(mut stages: Vec<Stage>) -> Option<Tap> {
        stages.sort();
        stages.dedup();
        (!stages.is_empty()).then_some(Tap(stages))
    }

    pub fn stages(&self) -> &[Stage] {
        &self.0
    }
}

impl From<Stage> for Tap {
    fn from(stage: Stage) -> Tap {
        Tap(vec![stage])
    }
}

impl FromStr for Tap {
    type Err = Error;

    fn from_str(s: &str) -> Result<Tap, Error> {
        let one = |part: &str| Stage::ALL.into_iter().find(|stage| stage.to_string() == part.trim());
        let stages: Option<Vec<Stage>> = s.split('+').map(one).collect();
        stages.and_then(Tap::new).ok_or_else(|| Error::UnknownTap(s.into()))
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, stage) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("+")?;
            }
            stage.fmt(f)?;
        }
        Ok(())
    }
}

/// How a stage's `h x w x c` map becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The mean of each channel.
    #[default]
    Avg,
    /// The greatest value of each channel.
    Max,
    /// The whole map, row by row, channels last.
    None,
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(s: &str) -> Result<Pooling, Error> {
        match s {
            "avg" => Ok(Pooling::Avg),
            "max" => Ok(Pooling::Max),
            "none" => Ok(Pooling::None),
            _ => Err(Error::UnknownPooling(s.into())),
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pooling::Avg => "avg",
            Pooling::Max => "max",
            Pooling::None => "none",
        })
    }
}

/// The output of a stage, before pooling.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMap {
    pub stage: Stage,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// `height x width x channels`.
    pub data: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_and_poolings_by_name() {
        let tap: Tap = "layer3+layer2".parse().unwrap();
        assert_eq!(tap.stages(), [Stage::Layer2, Stage::Layer3]);
        assert_eq!(tap.to_string(), "layer2+layer3");
        for wrong in ["", "layer5", "layer2+", "conv4"] {
            assert!(wrong.parse::<Tap>().is_err(), "{wrong}");
        }
        for name in ["avg", "max", "none"] {
            assert_eq!(name.parse::<Pooling>().unwrap().to_string(), name);
        }
    }
}
