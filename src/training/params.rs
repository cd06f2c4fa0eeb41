//! The detectors, and the estimators' parameters by scikit-learn's names.

use std::fmt::Display;
use std::str::FromStr;

use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::gaussian_mixture::{CovarianceType, GaussianMixtureParams};
use crate::estimators::isolation_forest::{Amount, Contamination, IsolationForestParams};
use crate::estimators::one_class_svm::{Gamma, KernelName, OneClassSvmParams};
use crate::estimators::pca::{NComponents, PcaParams, SvdSolver};

/// The detectors of `fit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DetectorKind {
    GaussianMixture,
    OneClassSvm,
    IsolationForest,
    PcaResidual,
    #[value(name = "mixture+residual")]
    MixtureResidual,
    /// `mixture+residual` of the pooled feature, joined with a Gaussian for each cell.
    #[default]
    #[value(name = "pooled+cells")]
    PooledCells,
}

impl DetectorKind {
    pub const ALL: [DetectorKind; 6] = [
        DetectorKind::GaussianMixture,
        DetectorKind::OneClassSvm,
        DetectorKind::IsolationForest,
        DetectorKind::PcaResidual,
        DetectorKind::MixtureResidual,
        DetectorKind::PooledCells,
    ];

    pub fn name(self) -> &'static str {
        match self {
            DetectorKind::GaussianMixture => "gaussian-mixture",
            DetectorKind::OneClassSvm => "one-class-svm",
            DetectorKind::IsolationForest => "isolation-forest",
            DetectorKind::PcaResidual => "pca-residual",
            DetectorKind::MixtureResidual => "mixture+residual",
            DetectorKind::PooledCells => "pooled+cells",
        }
    }

    /// Whether it needs cells besides the pooled feature.
    pub fn wants_cells(self) -> bool {
        self == DetectorKind::PooledCells
    }
}

/// The indices of candidates that share scaler and PCA.
pub struct Group {
    pub params: Params,
    pub members: Vec<usize>,
}

/// Groups candidates that share a projection, in the order of each group's first.
pub fn groups<'a>(params: impl IntoIterator<Item = &'a Params>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, params) in params.into_iter().enumerate() {
        match groups.iter_mut().find(|group| group.params.shares_projection(params)) {
            Some(group) => group.members.push(at),
            None => groups.push(Group { params: params.clone(), members: vec![at] }),
        }
    }
    groups
}

/// All parameters of a fit. The default is the article's recipe; see [`Params::of`].
#[derive(Debug, Clone)]
pub struct Params {
    pub transform: FeatureTransform,
    pub pca: PcaParams,
    pub gaussian_mixture: GaussianMixtureParams,
    pub one_class_svm: OneClassSvmParams,
    pub isolation_forest: IsolationForestParams,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            transform: FeatureTransform::Identity,
            pca: PcaParams { n_components: NComponents::Count(512), whiten: true, ..PcaParams::default() },
            gaussian_mixture: GaussianMixtureParams {
                n_components: 18,
                covariance_type: CovarianceType::Spherical,
                ..GaussianMixtureParams::default()
            },
            one_class_svm: OneClassSvmParams {
                kernel: KernelName::Rbf,
                gamma: Gamma::Value(0.001),
                nu: 0.08,
                ..OneClassSvmParams::default()
            },
            isolation_forest: IsolationForestParams {
                n_estimators: 40,
                max_samples: Amount::Share(1.0),
                contamination: Contamination::Share(0.08),
                ..IsolationForestParams::default()
            },
        }
    }
}

impl Params {
    /// A detector's defaults: the article's recipe for the article's detectors; for `mixture+residual` see the evidence in
    /// `models/README.md`.
    pub fn of(detector: DetectorKind) -> Self {
        let mut params = Params::default();
        if matches!(detector, DetectorKind::MixtureResidual | DetectorKind::PooledCells) {
            params.transform = FeatureTransform::Sqrt;
            params.pca.n_components = NComponents::Variance(0.98);
        }
        params
    }

    /// Whether transform and PCA are the same.
    pub fn shares_projection(&self, other: &Params) -> bool {
        (self.transform, &self.pca) == (other.transform, &other.pca)
    }

    /// Seeds every random estimator.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.pca.random_state = seed;
        self.gaussian_mixture.random_state = seed;
        self.isolation_forest.random_state = seed;
        self
    }

    /// Sets `estimator.parameter=value`, such as `pca.n_components=0.99` or `gaussian_mixture.covariance_type=diag`.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let (name, value) =
            assignment.split_once('=').ok_or_else(|| format!("'{assignment}' is not of the form name=value"))?;
        let (mixture, svm, forest) = (&mut self.gaussian_mixture, &mut self.one_class_svm, &mut self.isolation_forest);
        match name.trim() {
            "transform" => self.transform = parse(name, value)?,
            "pca.n_components" => self.pca.n_components = n_components(value)?,
            "pca.whiten" => self.pca.whiten = parse(name, value)?,
            "pca.svd_solver" => {
                self.pca.svd_solver = match value {
                    "auto" => SvdSolver::Auto,
                    "full" => SvdSolver::Full,
                    "randomized" => SvdSolver::Randomized,
                    _ => return Err(format!("{name} is auto, full or randomized, not '{value}'")),
                }
            }
            "gaussian_mixture.n_components" => mixture.n_components = parse(name, value)?,
            "gaussian_mixture.covariance_type" => {
                mixture.covariance_type = match value {
                    "spherical" => CovarianceType::Spherical,
                    "diag" => CovarianceType::Diag,
                    "tied" => CovarianceType::Tied,
                    "full" => CovarianceType::Full,
                    _ => return Err(format!("{name} is spherical, diag, tied or full, not '{value}'")),
                }
            }
            "gaussian_mixture.tol" => mixture.tol = parse(name, value)?,
            "gaussian_mixture.reg_covar" => mixture.reg_covar = parse(name, value)?,
            "gaussian_mixture.max_iter" => mixture.max_iter = parse(name, value)?,
            "gaussian_mixture.n_init" => mixture.n_init = parse(name, value)?,
            "one_class_svm.kernel" => {
                svm.kernel = match value {
                    "linear" => KernelName::Linear,
                    "poly" => KernelName::Poly,
                    "rbf" => KernelName::Rbf,
                    "sigmoid" => KernelName::Sigmoid,
                    _ => return Err(format!("{name} is linear, poly, rbf or sigmoid, not '{value}'")),
                }
            }
            "one_class_svm.gamma" => {
                svm.gamma = match value {
                    "scale" => Gamma::Scale,
                    "auto" => Gamma::Auto,
                    _ => Gamma::Value(parse(name, value)?),
                }
            }
            "one_class_svm.nu" => svm.nu = parse(name, value)?,
            "one_class_svm.degree" => svm.degree = parse(name, value)?,
            "one_class_svm.coef0" => svm.coef0 = parse(name, value)?,
            "one_class_svm.tol" => svm.tol = parse(name, value)?,
            "isolation_forest.n_estimators" => forest.n_estimators = parse(name, value)?,
            "isolation_forest.max_samples" => forest.max_samples = amount(name, value)?,
            "isolation_forest.max_features" => forest.max_features = amount(name, value)?,
            "isolation_forest.contamination" => {
                forest.contamination = match value {
                    "auto" => Contamination::Auto,
                    _ => Contamination::Share(parse(name, value)?),
                }
            }
            _ => return Err(format!("unknown parameter '{name}'; known are {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    pub const NAMES: [&'static str; 20] = [
        "transform",
        "pca.n_components",
        "pca.whiten",
        "pca.svd_solver",
        "gaussian_mixture.n_components",
        "gaussian_mixture.covariance_type",
        "gaussian_mixture.tol",
        "gaussian_mixture.reg_covar",
        "gaussian_mixture.max_iter",
        "gaussian_mixture.n_init",
        "one_class_svm.kernel",
        "one_class_svm.gamma",
        "one_class_svm.nu",
        "one_class_svm.degree",
        "one_class_svm.coef0",
        "one_class_svm.tol",
        "isolation_forest.n_estimators",
        "isolation_forest.max_samples",
        "isolation_forest.max_features",
        "isolation_forest.contamination",
    ];
}

fn parse<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|e| format!("{name}={value}: {e}"))
}

/// A count, or a share with a decimal point, as in scikit-learn.
fn amount(name: &str, value: &str) -> Result<Amount, String> {
    if let Ok(count) = value.parse::<usize>() {
        return Ok(Amount::Count(count));
    }
    parse(name, value).map(Amount::Share)
}

fn n_components(value: &str) -> Result<NComponents, String> {
    if let Ok(count) = value.parse::<usize>() {
        return if count > 0 { Ok(NComponents::Count(count)) } else { Err("pca.n_components is 1 or more".into()) };
    }
    match value.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(NComponents::Variance(share)),
        _ => Err(format!("pca.n_components is a count or a share of variance between 0 and 1, not '{value}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_set_and_nonsense_cannot() {
        let values = [
            "sqrt", "12", "false", "full", "3", "tied", "0.01", "1e-5", "10", "2", "poly", "scale", "0.1", "2", "1.0",
            "1e-4", "7", "0.5", "0.5", "auto",
        ];
        let mut params = Params::default();
        for (name, value) in Params::NAMES.iter().zip(values) {
            params.set(&format!("{name}={value}")).unwrap();
            assert!(params.set(&format!("{name}=nonsense")).is_err(), "{name}");
        }
        assert_eq!(params.pca.n_components, NComponents::Count(12));
        assert_eq!(params.gaussian_mixture.covariance_type, CovarianceType::Tied);
        params.set("pca.n_components=0.95").unwrap();
        assert_eq!(params.pca.n_components, NComponents::Variance(0.95));
        for bad in ["pca.n_components=0", "pca.n_components=1.5", "svm.nu=1", "pca"] {
            assert!(params.set(bad).is_err(), "{bad}");
        }
    }
}
