//! Standardization with the statistics of the training data, in float32 as neural-lam does it.

use mlwm_datasets::prepare::FeatureSet;

/// Mean and standard deviation of each feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardization {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Standardization {
    /// The statistics of some features, rounded to float32; a standard deviation is at least
    /// float32's epsilon, so that a constant feature divides by something.
    pub fn of(features: &FeatureSet) -> Self {
        Self {
            mean: features.mean().iter().map(|mean| *mean as f32).collect(),
            std: features
                .std()
                .iter()
                .map(|std| (*std as f32).max(f32::EPSILON))
                .collect(),
        }
    }

    /// The one that changes nothing.
    pub fn none(features: usize) -> Self {
        Self {
            mean: vec![0.0; features],
            std: vec![1.0; features],
        }
    }

    /// With further features that are not standardized.
    pub(crate) fn followed_by_none(mut self, features: usize) -> Self {
        let features = self.mean.len() + features;
        self.mean.resize(features, 0.0);
        self.std.resize(features, 1.0);
        self
    }

    /// Standardizes an array whose last dimension are the features: `(x - mean) / std`.
    pub fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len().max(1)) {
            for ((value, mean), std) in row.iter_mut().zip(&self.mean).zip(&self.std) {
                *value = (*value - mean) / std;
            }
        }
    }

    /// The physical value of a feature: `x * std + mean`.
    pub fn physical(&self, feature: usize, value: f32) -> f32 {
        value * self.std[feature] + self.mean[feature]
    }
}

/// Standardizes static features in the type that NumPy holds them in, then rounds to float32.
///
/// # Errors
/// If they cannot be read or are not finite.
pub fn standardized_static(
    features: &FeatureSet,
) -> Result<Vec<f32>, mlwm_datasets::prepare::PrepareError> {
    let mut values = features.reader(&[]).read(None)?;
    features.check_finite(&values, None, None)?;
    if !features.is_double() {
        Standardization::of(features).apply(&mut values);
        return Ok(values);
    }
    let mut values = features.reader(&[]).read_f64(None)?;
    for row in values.chunks_exact_mut(features.len().max(1)) {
        for ((value, mean), std) in row.iter_mut().zip(features.mean()).zip(features.std()) {
            *value = (*value - mean) / std.max(f64::EPSILON);
        }
    }
    Ok(values.into_iter().map(|value| value as f32).collect())
}
