//! The detector over cells as the model file keeps it.

use serde::{Deserialize, Serialize};

use super::values::{IntegersV1, check, finite_f32};
use crate::backbone::cells::{CHANNELS, MAX_SIDE};
use crate::estimators::cell_gaussians::CellGaussians;
use crate::estimators::level::{Level, QUANTILES};
use crate::model::cells::{CellDetector, Joined};

#[derive(Serialize, Deserialize)]
pub(super) struct JoinedV4 {
    height: u32,
    width: u32,
    components: IntegersV1,
    centre: Vec<f32>,
    means: Vec<f32>,
    factors: Vec<i8>,
    scales: Vec<f32>,
    weights: Vec<f32>,
    of_feature: LevelV4,
    of_cells: LevelV4,
}

#[derive(Serialize, Deserialize)]
struct LevelV4 {
    quantiles: [f64; QUANTILES],
    share: f64,
    excess: f64,
}

impl LevelV4 {
    fn of(level: &Level) -> LevelV4 {
        LevelV4 { quantiles: level.quantiles, share: level.share, excess: level.excess }
    }

    fn level(self) -> Result<Level, String> {
        let LevelV4 { quantiles, share, excess } = self;
        let finite = quantiles.iter().chain([&share, &excess]).all(|v| v.is_finite());
        check(finite && quantiles.is_sorted() && excess > 0.0 && share > 0.0 && share <= 1.0, "a detector's scale")?;
        Ok(Level { quantiles, share, excess })
    }
}

pub(super) fn body(joined: &Joined) -> JoinedV4 {
    let Joined { cells, of_feature, of_cells } = joined;
    JoinedV4 {
        height: cells.height as u32,
        width: cells.width as u32,
        components: IntegersV1::of(&cells.components),
        centre: cells.centre.clone(),
        means: cells.gaussians.means.clone(),
        factors: cells.gaussians.factors.clone(),
        scales: cells.gaussians.scales.clone(),
        weights: cells.gaussians.weights.clone(),
        of_feature: LevelV4::of(of_feature),
        of_cells: LevelV4::of(of_cells),
    }
}

pub(super) fn joined(body: JoinedV4) -> Result<Joined, String> {
    let (height, width) = (body.height as usize, body.width as usize);
    let side = 1..=MAX_SIDE;
    check(side.contains(&height) && side.contains(&width), "the grid of the cells")?;
    let channels = body.components.cols();
    check((1..=CHANNELS).contains(&channels), "the number of values of a cell")?;
    let components = body.components.matrix(channels)?;
    check(body.centre.len() == components.rows, "the centre of the cells")?;
    let gaussians = CellGaussians {
        n_features: components.rows,
        means: body.means,
        factors: body.factors,
        scales: body.scales,
        weights: body.weights,
    };
    check(gaussians.is_whole() && gaussians.n_values() == height * width * components.rows, "the cells' Gaussians")?;
    finite_f32(&body.centre, "the centre of the cells")?;
    finite_f32(&gaussians.means, "the cells' means")?;
    finite_f32(&gaussians.scales, "the cells' scales")?;
    finite_f32(&gaussians.weights, "the cells' weights")?;
    Ok(Joined {
        cells: CellDetector { height, width, components, centre: body.centre, gaussians },
        of_feature: body.of_feature.level()?,
        of_cells: body.of_cells.level()?,
    })
}
