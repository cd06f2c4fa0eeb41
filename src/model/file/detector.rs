//! The detectors as the model file keeps them.

use std::marker::PhantomData;

use ndarray::Array1;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::values::{FloatsV1, check};
use crate::estimators::gaussian_mixture::{Covariances, GaussianMixture};
use crate::estimators::isolation_forest::{IsolationForest, Tree};
use crate::estimators::kernel::Kernel;
use crate::estimators::mixture_residual::MixtureResidual;
use crate::estimators::one_class_svm::OneClassSvm;
use crate::model::detector::Detector;

#[derive(Serialize, Deserialize)]
pub(super) enum DetectorV1 {
    GaussianMixture(MixtureV1),
    PcaResidual,
    OneClassSvm {
        kernel: KernelV1,
        support_vectors: FloatsV1,
        dual_coef: Vec<f64>,
        offset: f64,
    },
    IsolationForest {
        #[serde(deserialize_with = "at_most::<MAX_TREES, _, _>")]
        trees: Vec<TreeV1>,
        max_samples: u32,
        offset: f64,
    },
    MixtureResidual {
        mixture: MixtureV1,
        noise_variance: f64,
        dof: u32,
        log_volume: f64,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct MixtureV1 {
    weights: Vec<f64>,
    means: FloatsV1,
    precisions_cholesky: CovariancesV1,
}

#[derive(Serialize, Deserialize)]
pub(super) enum KernelV1 {
    Linear,
    Poly { gamma: f64, coef0: f64, degree: u32 },
    Rbf { gamma: f64 },
    Sigmoid { gamma: f64, coef0: f64 },
}

/// Node 0 is the root; a node with `left == 0` is a leaf; children follow their parent.
#[derive(Serialize, Deserialize)]
pub(super) struct TreeV1 {
    feature: Vec<u32>,
    threshold: Vec<f32>,
    left: Vec<u32>,
    right: Vec<u32>,
    n_node_samples: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum CovariancesV1 {
    Spherical(Vec<f64>),
    Diag(FloatsV1),
    Tied(FloatsV1),
    #[serde(deserialize_with = "at_most::<MAX_MATRICES, _, _>")]
    Full(Vec<FloatsV1>),
}

/// Limits of lists whose elements take more memory than bytes of the file.
const MAX_TREES: usize = 10_000;
const MAX_MATRICES: usize = 10_000;

/// Reads a list with at most `MAX` elements.
pub(super) fn at_most<'de, const MAX: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

struct AtMost<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            if values.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            values.push(value);
        }
        Ok(values)
    }
}

pub(super) fn body(detector: &Detector) -> DetectorV1 {
    match detector {
        Detector::GaussianMixture(mixture) => DetectorV1::GaussianMixture(mixture_body(mixture)),
        Detector::MixtureResidual(both) => DetectorV1::MixtureResidual {
            mixture: mixture_body(&both.mixture),
            noise_variance: both.noise_variance,
            dof: both.dof as u32,
            log_volume: both.log_volume,
        },
        Detector::PcaResidual => DetectorV1::PcaResidual,
        Detector::OneClassSvm(svm) => DetectorV1::OneClassSvm {
            kernel: match svm.kernel {
                Kernel::Linear => KernelV1::Linear,
                Kernel::Poly { gamma, coef0, degree } => KernelV1::Poly { gamma, coef0, degree },
                Kernel::Rbf { gamma } => KernelV1::Rbf { gamma },
                Kernel::Sigmoid { gamma, coef0 } => KernelV1::Sigmoid { gamma, coef0 },
            },
            support_vectors: FloatsV1::of(&svm.support_vectors),
            dual_coef: svm.dual_coef.to_vec(),
            offset: svm.offset,
        },
        Detector::IsolationForest(forest) => DetectorV1::IsolationForest {
            trees: forest.trees.iter().map(tree_body).collect(),
            max_samples: forest.max_samples as u32,
            offset: forest.offset,
        },
    }
}

fn mixture_body(mixture: &GaussianMixture) -> MixtureV1 {
    MixtureV1 {
        weights: mixture.weights.to_vec(),
        means: FloatsV1::of(&mixture.means),
        precisions_cholesky: match &mixture.precisions_cholesky {
            Covariances::Spherical(v) => CovariancesV1::Spherical(v.to_vec()),
            Covariances::Diag(v) => CovariancesV1::Diag(FloatsV1::of(v)),
            Covariances::Tied(v) => CovariancesV1::Tied(FloatsV1::of(v)),
            Covariances::Full(v) => CovariancesV1::Full(v.iter().map(FloatsV1::of).collect()),
        },
    }
}

fn tree_body(tree: &Tree) -> TreeV1 {
    TreeV1 {
        feature: tree.feature.clone(),
        threshold: tree.threshold.iter().map(|t| rounded_down(*t)).collect(),
        left: tree.left.clone(),
        right: tree.right.clone(),
        n_node_samples: tree.n_node_samples.clone(),
    }
}

/// The largest f32 not above `value`: an f32 sample is at most `value` when it is at most that.
fn rounded_down(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) > value { nearest.next_down() } else { nearest }
}

/// A tree whose every path ends, because children follow their parent.
fn tree(body: TreeV1, n: usize) -> Result<Tree, String> {
    let nodes = body.feature.len();
    let what = "a tree of the forest";
    let lengths = [body.threshold.len(), body.left.len(), body.right.len(), body.n_node_samples.len()];
    check(nodes > 0 && lengths == [nodes; 4], what)?;
    check(body.threshold.iter().all(|t| t.is_finite()), what)?;
    for at in 0..nodes {
        let (left, right) = (body.left[at] as usize, body.right[at] as usize);
        let behind = |child: usize| child > at && child < nodes;
        check(left == 0 || (behind(left) && behind(right) && (body.feature[at] as usize) < n), what)?;
    }
    Ok(Tree {
        feature: body.feature,
        threshold: body.threshold.into_iter().map(f64::from).collect(),
        left: body.left,
        right: body.right,
        n_node_samples: body.n_node_samples,
    })
}

fn mixture(body: MixtureV1, n: usize) -> Result<GaussianMixture, String> {
    let MixtureV1 { weights, means, precisions_cholesky } = body;
    let k = weights.len();
    check(k > 0 && weights.iter().all(|w| w.is_finite() && *w >= 0.0), "the mixture's weights")?;
    let means = means.array(k, n, "the mixture's means")?;
    let what = "the mixture's covariances";
    let precisions_cholesky = match precisions_cholesky {
        CovariancesV1::Spherical(v) => {
            check(v.len() == k && v.iter().all(|v| v.is_finite() && *v > 0.0), what)?;
            Covariances::Spherical(Array1::from(v))
        }
        CovariancesV1::Diag(v) => Covariances::Diag(v.array(k, n, what)?),
        CovariancesV1::Tied(v) => Covariances::Tied(v.array(n, n, what)?),
        CovariancesV1::Full(v) => {
            check(v.len() == k, what)?;
            Covariances::Full(v.into_iter().map(|v| v.array(n, n, what)).collect::<Result<_, _>>()?)
        }
    };
    GaussianMixture::from_precisions_cholesky(Array1::from(weights), means, precisions_cholesky)
        .map_err(|e| e.to_string())
}

/// Rebuilds a detector over `n` components of `n_features` features.
pub(super) fn detector(body: DetectorV1, n: usize, n_features: usize) -> Result<Detector, String> {
    match body {
        DetectorV1::GaussianMixture(body) => mixture(body, n).map(Detector::GaussianMixture),
        DetectorV1::MixtureResidual { mixture: body, noise_variance, dof, log_volume } => {
            check(noise_variance.is_finite() && noise_variance > 0.0, "the residual's variance")?;
            check(log_volume.is_finite(), "the whitening's volume")?;
            check(dof as usize == n_features - n, "the residual's dimensions")?;
            let (mixture, dof) = (mixture(body, n)?, dof as usize);
            Ok(Detector::MixtureResidual(MixtureResidual { mixture, noise_variance, dof, log_volume }))
        }
        DetectorV1::PcaResidual => Ok(Detector::PcaResidual),
        DetectorV1::OneClassSvm { kernel, support_vectors, dual_coef, offset } => {
            let count = dual_coef.len();
            check(count > 0 && offset.is_finite() && dual_coef.iter().all(|c| c.is_finite()), "the machine's weights")?;
            let kernel = match kernel {
                KernelV1::Linear => Kernel::Linear,
                KernelV1::Poly { gamma, coef0, degree } => Kernel::Poly { gamma, coef0, degree },
                KernelV1::Rbf { gamma } => Kernel::Rbf { gamma },
                KernelV1::Sigmoid { gamma, coef0 } => Kernel::Sigmoid { gamma, coef0 },
            };
            Ok(Detector::OneClassSvm(OneClassSvm {
                kernel,
                support: (0..count).collect(),
                support_vectors: support_vectors.array(count, n, "the machine's support vectors")?,
                dual_coef: Array1::from(dual_coef),
                offset,
                n_iter: 0,
            }))
        }
        DetectorV1::IsolationForest { trees, max_samples, offset } => {
            check(!trees.is_empty() && max_samples > 0 && offset.is_finite(), "the forest")?;
            Ok(Detector::IsolationForest(IsolationForest {
                trees: trees.into_iter().map(|body| tree(body, n)).collect::<Result<_, _>>()?,
                n_features: n,
                max_samples: max_samples as usize,
                offset,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_take_more_memory_than_bytes_have_a_limit() {
        let empty =
            || TreeV1 { feature: vec![], threshold: vec![], left: vec![], right: vec![], n_node_samples: vec![] };
        let forest = |n: usize| DetectorV1::IsolationForest {
            trees: (0..n).map(|_| empty()).collect(),
            max_samples: 1,
            offset: 0.0,
        };
        let read = |n: usize| postcard::from_bytes::<DetectorV1>(&postcard::to_stdvec(&forest(n)).unwrap()).is_ok();
        assert!(read(MAX_TREES) && !read(MAX_TREES + 1));
    }
}
