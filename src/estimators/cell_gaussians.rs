//! A Gaussian for each cell of a grid (Defard et al. 2021, "PaDiM"), its covariance shrunk towards the one that all
//! cells share: `C = a S_cell + (1 - a) S_shared + ridge I` with `a = n / (n + SHRINKAGE)` for `n` samples. Distances are
//! squared Mahalanobis distances, divided by their mean over the samples, which in turn is shrunk towards that of all cells,
//! so that cells that vary a lot do not dominate.
//!
//! [`Sums`] are the sufficient statistics of a fit; those of a fold can be subtracted from them.

use ndarray::{Array2, s};

use super::linalg::{self, dot};
use super::{Error, check_features};

const NAME: &str = "cell Gaussians";
/// Samples at which a cell's own covariance weighs as much as the shared one.
const SHRINKAGE: f64 = 20.0;
/// Added to every variance; samples are whitened, so it is relative to the variance over all cells.
const RIDGE: f64 = 1e-2;

/// Sums of samples of `n_cells x n_features` and of their products, per cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    n: f64,
    n_features: usize,
    values: Vec<f64>,
    /// Lower triangles, row by row.
    products: Vec<f64>,
}

/// The number of entries of a lower triangle.
fn triangle(n: usize) -> usize {
    n * (n + 1) / 2
}

impl Sums {
    pub fn new(n_cells: usize, n_features: usize) -> Sums {
        let products = vec![0.0; n_cells * triangle(n_features)];
        Sums { n: 0.0, n_features, values: vec![0.0; n_cells * n_features], products }
    }

    /// Adds a sample, row by row of the cells.
    pub fn add(&mut self, sample: &[f32]) -> Result<(), Error> {
        self.weigh(sample, 1.0)
    }

    /// Removes a sample that was added.
    pub fn subtract(&mut self, sample: &[f32]) -> Result<(), Error> {
        self.weigh(sample, -1.0)
    }

    fn weigh(&mut self, sample: &[f32], weight: f64) -> Result<(), Error> {
        check_features(NAME, self.values.len(), sample.len())?;
        self.n += weight;
        let of_cells = self.products.chunks_exact_mut(triangle(self.n_features));
        let cells = sample.chunks_exact(self.n_features).zip(self.values.chunks_exact_mut(self.n_features));
        for ((cell, values), products) in cells.zip(of_cells) {
            let mut rest = products;
            for (i, (x, sum)) in cell.iter().zip(values).enumerate() {
                *sum += weight * f64::from(*x);
                let (row, others) = rest.split_at_mut(i + 1);
                let x = weight * f64::from(*x);
                row.iter_mut().zip(cell).for_each(|(sum, y)| *sum += x * f64::from(*y));
                rest = others;
            }
        }
        Ok(())
    }

    /// The share of the variance of all cells that their place explains: 0 where cells do not depend on the place, 1 where all
    /// samples are equal.
    pub fn share_of_the_place(&self) -> f64 {
        let (d, n) = (self.n_features, self.n);
        let n_cells = (self.values.len() / d.max(1)) as f64;
        let (mut within, mut squares) = (0.0, 0.0);
        let mut all = vec![0.0; d];
        for (sums, products) in self.values.chunks_exact(d).zip(self.products.chunks_exact(triangle(d))) {
            for (i, sum) in sums.iter().enumerate() {
                let square = products[triangle(i) + i];
                within += (square - sum * sum / n).max(0.0) / (n - 1.0).max(1.0) / n_cells;
                squares += square / (n * n_cells);
                all[i] += sum / (n * n_cells);
            }
        }
        let total = squares - all.iter().map(|mean| mean * mean).sum::<f64>();
        if total > within { 1.0 - within / total } else { 0.0 }
    }

    /// The Gaussians of the samples.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] below 2; [`Error::Decomposition`] where a covariance is not positive.
    pub fn fit(&self) -> Result<CellGaussians, Error> {
        if self.n < 2.0 {
            return Err(Error::TooFewSamples { estimator: NAME, needed: 2, got: self.n.max(0.0) as usize });
        }
        let (d, n) = (self.n_features, self.n);
        let mut covariances = self.products.clone();
        let mut shared = vec![0.0; triangle(d)];
        for (cell, sums) in covariances.chunks_exact_mut(triangle(d)).zip(self.values.chunks_exact(d)) {
            let mut at = 0;
            for i in 0..d {
                for j in 0..=i {
                    cell[at] = cell[at] / n - sums[i] / n * (sums[j] / n);
                    at += 1;
                }
            }
            shared.iter_mut().zip(&*cell).for_each(|(shared, own)| *shared += own);
        }
        let n_cells = self.values.len() / d.max(1);
        let own = n / (n + SHRINKAGE);
        let others = (1.0 - own) / n_cells.max(1) as f64;
        let mut fitted = CellGaussians {
            n_features: d,
            means: self.values.iter().map(|sum| (sum / n) as f32).collect(),
            factors: Vec::with_capacity(covariances.len()),
            scales: Vec::with_capacity(self.values.len()),
            weights: Vec::with_capacity(n_cells),
        };
        let mut means = Vec::with_capacity(n_cells);
        let failed = || Error::Decomposition { estimator: NAME };
        for cell in covariances.chunks_exact(triangle(d)) {
            let mut covariance = Array2::zeros((d, d));
            for i in 0..d {
                for (j, at) in (triangle(i)..=triangle(i) + i).enumerate() {
                    covariance[[i, j]] = own * cell[at] + others * shared[at];
                    covariance[[j, i]] = covariance[[i, j]];
                }
                covariance[[i, i]] += RIDGE;
            }
            let inverse = linalg::invert_lower(linalg::cholesky(covariance.view()).ok_or_else(failed)?.view());
            // The mean distance of the samples: the trace of precision times covariance.
            let precision = inverse.t().dot(&inverse);
            let both = |i: usize, j: usize| precision[[i, j]] * cell[triangle(i) + j] * if i == j { 1.0 } else { 2.0 };
            means.push((0..d).map(|i| (0..=i).map(|j| both(i, j)).sum::<f64>()).sum::<f64>());
            for (i, row) in inverse.rows().into_iter().enumerate() {
                let row = row.slice(s![..=i]);
                let scale = (row.fold(0.0_f64, |most, v| most.max(v.abs())) / 127.0) as f32;
                if !(scale > 0.0 && scale.is_finite()) {
                    return Err(failed());
                }
                fitted.factors.extend(row.iter().map(|v| (v / f64::from(scale)).round().clamp(-127.0, 127.0) as i8));
                fitted.scales.push(scale);
            }
        }
        let common = means.iter().sum::<f64>() / n_cells.max(1) as f64;
        let weight = |mean: f64| 1.0 / (own * mean + (1.0 - own) * common).max(f64::from(f32::MIN_POSITIVE).sqrt());
        fitted.weights.extend(means.into_iter().map(|mean| weight(mean) as f32));
        Ok(fitted)
    }
}

/// Fitted Gaussians: means and the inverse Cholesky factors of the covariances, as small integers.
#[derive(Debug, Clone, PartialEq)]
pub struct CellGaussians {
    pub n_features: usize,
    /// `n_cells x n_features`.
    pub means: Vec<f32>,
    /// Lower triangles, row by row; an entry is to be multiplied by its row's scale.
    pub factors: Vec<i8>,
    /// `n_cells x n_features`.
    pub scales: Vec<f32>,
    /// Factors of the distances, `n_cells`.
    pub weights: Vec<f32>,
}

impl CellGaussians {
    /// The number of values of a sample.
    pub fn n_values(&self) -> usize {
        self.means.len()
    }

    /// Whether the lengths of the parts are consistent.
    pub fn is_whole(&self) -> bool {
        let d = self.n_features;
        d > 0
            && self.means.len().is_multiple_of(d)
            && self.scales.len() == self.means.len()
            && self.weights.len() == self.means.len() / d
            && self.factors.len() == self.means.len() / d * triangle(d)
    }

    /// The squared distance of every cell of a sample; 1 on average.
    ///
    /// # Errors
    /// [`Error::Features`].
    pub fn distances(&self, sample: &[f32]) -> Result<Vec<f32>, Error> {
        let mut distances = self.mahalanobis(sample)?;
        distances.iter_mut().zip(&self.weights).for_each(|(distance, weight)| *distance *= weight);
        Ok(distances)
    }

    /// Squared Mahalanobis distances.
    fn mahalanobis(&self, sample: &[f32]) -> Result<Vec<f32>, Error> {
        check_features(NAME, self.means.len(), sample.len())?;
        let d = self.n_features.max(1);
        let mut off = vec![0.0; d];
        let mut distances = Vec::with_capacity(self.weights.len());
        for (cell, (x, mean)) in sample.chunks_exact(d).zip(self.means.chunks_exact(d)).enumerate() {
            off.iter_mut().zip(x.iter().zip(mean)).for_each(|(off, (x, mean))| *off = x - mean);
            let factors = &self.factors[cell * triangle(d)..(cell + 1) * triangle(d)];
            let scales = &self.scales[cell * d..(cell + 1) * d];
            let row = |(i, scale): (usize, &f32)| scale * dot(&factors[triangle(i)..triangle(i + 1)], &off[..=i]);
            distances.push(scales.iter().enumerate().map(row).map(|z| z * z).sum());
        }
        Ok(distances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(n: usize, cells: usize, d: usize) -> Vec<Vec<f32>> {
        let value = |s: usize, i: usize| ((s * 7919 + i * 104_729 + s * s * i) as f32 * 0.37).sin() + i as f32 * 0.1;
        (0..n).map(|s| (0..cells * d).map(|i| value(s, i)).collect()).collect()
    }

    fn of(samples: &[Vec<f32>], cells: usize, d: usize) -> Sums {
        let mut sums = Sums::new(cells, d);
        samples.iter().for_each(|sample| sums.add(sample).unwrap());
        sums
    }

    /// By Gaussian elimination on the covariance itself.
    fn exact(train: &[Vec<f32>], sample: &[f32], cells: usize, d: usize, cell: usize) -> f64 {
        let n = train.len() as f64;
        let moments = |cell: usize| {
            let at = |s: &Vec<f32>, i: usize| f64::from(s[cell * d + i]);
            let mean: Vec<f64> = (0..d).map(|i| train.iter().map(|s| at(s, i)).sum::<f64>() / n).collect();
            let mut c = vec![vec![0.0; d]; d];
            for s in train {
                for i in 0..d {
                    for j in 0..d {
                        c[i][j] += (at(s, i) - mean[i]) * (at(s, j) - mean[j]) / n;
                    }
                }
            }
            (mean, c)
        };
        let (mean, own) = moments(cell);
        let a = n / (n + SHRINKAGE);
        let mut m = vec![vec![0.0; d + 1]; d];
        for other in 0..cells {
            let (_, c) = moments(other);
            (0..d).for_each(|i| (0..d).for_each(|j| m[i][j] += (1.0 - a) * c[i][j] / cells as f64));
        }
        let off: Vec<f64> = (0..d).map(|i| f64::from(sample[cell * d + i]) - mean[i]).collect();
        for i in 0..d {
            (0..d).for_each(|j| m[i][j] += a * own[i][j]);
            m[i][i] += RIDGE;
            m[i][d] = off[i];
        }
        for i in 0..d {
            for k in 0..d {
                if k != i {
                    let factor = m[k][i] / m[i][i];
                    (i..=d).for_each(|j| m[k][j] -= factor * m[i][j]);
                }
            }
        }
        (0..d).map(|i| off[i] * m[i][d] / m[i][i]).sum()
    }

    #[test]
    fn distances_are_mahalanobis_distances() {
        let (cells, d) = (5, 6);
        let train = samples(40, cells, d);
        let gaussians = of(&train, cells, d).fit().unwrap();
        assert!(gaussians.is_whole());
        for sample in samples(45, cells, d).iter().skip(38) {
            let got = gaussians.mahalanobis(sample).unwrap();
            for (cell, got) in got.into_iter().enumerate() {
                let wanted = exact(&train, sample, cells, d, cell);
                assert!((f64::from(got) - wanted).abs() < 0.02 * wanted, "{got} {wanted}");
            }
        }
        assert!(gaussians.distances(&[0.0; 3]).is_err());
        for (cell, weight) in gaussians.weights.iter().enumerate() {
            let mean: f64 = train.iter().map(|s| exact(&train, s, cells, d, cell)).sum::<f64>() / 40.0;
            let all: f64 =
                (0..cells).map(|cell| train.iter().map(|s| exact(&train, s, cells, d, cell)).sum::<f64>()).sum();
            let shrunk = (40.0 * mean + SHRINKAGE * all / (40 * cells) as f64) / (40.0 + SHRINKAGE);
            assert!((f64::from(*weight) * shrunk - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn a_subtracted_fold_has_no_effect() {
        let train = samples(30, 3, 4);
        let mut sums = of(&train, 3, 4);
        train[20..].iter().for_each(|sample| sums.subtract(sample).unwrap());
        let (got, wanted) = (sums.fit().unwrap(), of(&train[..20], 3, 4).fit().unwrap());
        let (got, wanted) = (got.distances(&train[25]).unwrap(), wanted.distances(&train[25]).unwrap());
        got.iter().zip(&wanted).for_each(|(a, b)| assert!((a - b).abs() < 1e-3 * b, "{a} {b}"));
    }

    #[test]
    fn the_share_of_the_place_is_that_of_the_means() {
        let noise = |s: usize, i: usize| ((s * 7919 + i * 104_729 + s * s * i) as f32 * 0.37).sin();
        for spread in [0.0_f32, 0.5, 3.0] {
            let sample = |s: usize| (0..12).map(|i| noise(s, i) + spread * (i / 3) as f32).collect();
            let train: Vec<Vec<f32>> = (0..300).map(sample).collect();
            // The variance of 0, 1, 2, 3 is 1.25, that of a sine 0.5.
            let wanted = f64::from(1.25 * spread * spread / (1.25 * spread * spread + 0.5));
            let got = of(&train, 4, 3).share_of_the_place();
            assert!((got - wanted).abs() < 0.05, "{got} {wanted}");
        }
        assert_eq!(of(&[vec![1.0; 4], vec![1.0; 4]], 2, 2).share_of_the_place(), 0.0);
    }

    #[test]
    fn equal_samples_are_near_and_others_far() {
        let train = vec![vec![0.5; 8]; 12];
        let gaussians = of(&train, 4, 2).fit().unwrap();
        assert!(gaussians.distances(&train[0]).unwrap().iter().all(|d| *d < 1e-6));
        assert!(gaussians.distances(&[0.7; 8]).unwrap().iter().all(|d| *d > 1.0 && d.is_finite()));
        assert!(Sums::new(2, 2).fit().is_err());
    }
}
