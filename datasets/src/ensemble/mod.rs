//! Products of an ensemble, accumulated while its members pass by: mean, spread, extremes,
//! probabilities and percentiles at every point and step.
//!
//! No member is read twice, and none is kept as a whole. For every variable and window there is one
//! file, to which each member is added when its window is there. The result, and every file on the
//! way to it, depends on which members were added, not on their order: sums are sums of integers.
//!
//! Mean and spread come from the sum of the values and of their squares as integers of a unit of
//! 2⁻⁸⁰, which no rounding and no cancellation touches: values of float32 above 10⁻¹⁷ are whole
//! multiples of it. Percentiles are exact too: the values of the members so far are kept, sorted.
//! Bins would take as much room (a hundred of them, as fifty members do), and give a percentile no
//! better than their width. Values count as float32, also where a member's are stored narrower.
//!
//! Memory is bounded by one plane for each product and one block of 16,384 points.

mod addition;
mod block;
mod error;
mod exact;
mod members;
mod product;
mod state;
#[cfg(test)]
mod tests;

pub use addition::{MAX_MEMBERS, MAX_SORTED_MEMBERS};
pub use error::EnsembleError;
pub use members::Ensemble;
pub use mlwm_spec::configuration::Product;
