//! The learning rate over the budget.

use crate::plan::{Schedule, TrainSpec};

/// Learning rate at `fraction` of the budget, in [0, 1].
///
/// Rises linearly from 0 over the warm-up share, then stays, or falls to 0 at the end. The loop asks at the
/// middle of each step, so that neither the first nor the last step is spent on a rate of 0, and arms whose
/// steps differ in size follow the same curve of the budget.
pub fn learning_rate(spec: &TrainSpec, fraction: f64) -> f64 {
    let fraction = fraction.clamp(0.0, 1.0);
    if fraction < spec.warmup {
        return spec.learning_rate * fraction / spec.warmup;
    }
    let rest = (fraction - spec.warmup) / (1.0 - spec.warmup);
    spec.learning_rate
        * match spec.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - rest,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * rest).cos()),
        }
}
