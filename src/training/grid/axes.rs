//! The grid of each detector.

use crate::training::params::DetectorKind;

/// A parameter and the values it is tried with.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// As [`crate::training::params::Params::set`] takes it.
    pub name: &'static str,
    pub values: Vec<&'static str>,
    /// The value of [`crate::training::params::Params::of`].
    pub default: &'static str,
}

/// The grid of a detector, without the parameters that `set` fixes. Counts above what `n` training pictures of `width`
/// values allow all mean the same fit: one of them stays.
pub fn axes(detector: DetectorKind, set: &[String], n: usize, width: usize) -> Vec<Axis> {
    const PCA: Row = ("pca.n_components", &["128", "256", "512", "768", "1024"], "512");
    let axes: &[Row] = match detector {
        DetectorKind::GaussianMixture => &[
            PCA,
            ("gaussian_mixture.n_components", &["6", "18", "54"], "18"),
            ("gaussian_mixture.covariance_type", &["spherical", "diag", "tied"], "spherical"),
        ],
        DetectorKind::OneClassSvm => &[
            PCA,
            ("one_class_svm.gamma", &["0.0001", "0.0003", "0.001", "0.003", "0.01"], "0.001"),
            ("one_class_svm.nu", &["0.04", "0.08", "0.16"], "0.08"),
        ],
        DetectorKind::IsolationForest => &[
            PCA,
            ("isolation_forest.n_estimators", &["20", "40", "80"], "40"),
            ("isolation_forest.max_samples", &["0.25", "0.5", "1.0"], "1.0"),
        ],
        DetectorKind::PcaResidual => &[("pca.n_components", &["0.8", "0.9", "512", "0.95", "0.98"], "512")],
        DetectorKind::MixtureResidual | DetectorKind::PooledCells => &[
            ("transform", &["identity", "sqrt"], "sqrt"),
            ("pca.n_components", &["0.9", "0.95", "0.98", "0.99", "0.995"], "0.98"),
            ("gaussian_mixture.n_components", &["1", "6", "18", "36", "72"], "18"),
        ],
    };
    let fixed = |name: &str| set.iter().any(|s| s.split_once('=').is_some_and(|(n, _)| n.trim() == name));
    axes.iter()
        .filter(|(name, ..)| !fixed(name))
        .map(|&(name, values, default)| {
            let limit = match name {
                "pca.n_components" => n.saturating_sub(1).min(width),
                "gaussian_mixture.n_components" => n / 2,
                _ => usize::MAX,
            };
            Axis { name, values: allowed(values, default, limit.max(1)), default }
        })
        .collect()
}

type Row = (&'static str, &'static [&'static str], &'static str);

/// Of the counts from `limit` up, which are all reduced to `limit`, keeps the default, else the least.
fn allowed(values: &[&'static str], default: &str, limit: usize) -> Vec<&'static str> {
    let above = |value: &str| value.parse::<usize>().is_ok_and(|count| count >= limit);
    let stays = values.iter().find(|v| **v == default && above(v)).or(values.iter().find(|v| above(v)));
    values.iter().filter(|v| !above(v) || Some(*v) == stays).copied().collect()
}

/// Every combination, the first axis slowest.
pub(super) fn combinations(axes: &[Axis]) -> Vec<Vec<&'static str>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        let with = |head: &Vec<&'static str>| {
            axis.values.iter().map(|value| [head.as_slice(), &[*value]].concat()).collect::<Vec<_>>()
        };
        all.iter().flat_map(with).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::params::Params;

    #[test]
    fn every_grid_holds_the_default_and_leaves_out_what_is_fixed_or_not_allowed() {
        for kind in DetectorKind::ALL {
            for n in [6, 60, 600, 6000] {
                let axes = axes(kind, &[], n, 2048);
                for axis in &axes {
                    assert!(axis.values.contains(&axis.default) || n < 600, "{kind:?} {n} {axis:?}");
                    let mut params = Params::of(kind);
                    axis.values.iter().for_each(|v| params.set(&format!("{}={v}", axis.name)).unwrap());
                    params.set(&format!("{}={}", axis.name, axis.default)).unwrap();
                    assert_eq!(format!("{params:?}"), format!("{:?}", Params::of(kind)));
                }
            }
        }
        let set = ["gaussian_mixture.covariance_type=full".to_owned()];
        let names: Vec<&str> = axes(DetectorKind::GaussianMixture, &set, 400, 1024).iter().map(|a| a.name).collect();
        assert_eq!(names, ["pca.n_components", "gaussian_mixture.n_components"]);
        let counts = ["128", "256", "512", "768", "1024"];
        assert_eq!(allowed(&counts, "512", 487), ["128", "256", "512"]);
        assert_eq!(allowed(&counts, "512", 600), ["128", "256", "512", "768"]);
        assert_eq!(allowed(&counts, "512", 40), ["512"]);
        assert_eq!(allowed(&["0.9", "0.98"], "0.98", 40), ["0.9", "0.98"]);
    }
}
