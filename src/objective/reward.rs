//! Reward modelling by Bradley and Terry (Stiennon et al. 2020, arXiv 2009.01325, eq. 1; Ouyang et al. 2022,
//! arXiv 2203.02155, eq. 1):
//!
//! loss = −log σ(r(x, y_w) − r(x, y_l))
//!
//! with r the score of the whole sequence. It is blind to a shift of all scores; what is learned are differences.

use super::batch::{Batch, StepContext, Terms, interleave};
use super::ops::log_sigmoid;
use super::registry::{Feedback, Objective};
use crate::base::error::Result;

pub struct Reward;

impl Objective for Reward {
    fn name(&self) -> &'static str {
        "reward"
    }

    fn feedback(&self) -> Feedback {
        Feedback::Paired
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn reads_scores(&self) -> bool {
        true
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?; // (p,) scores
        let losses = log_sigmoid(&(&chosen.policy - &rejected.policy)?)?.neg()?;
        Terms::mean(losses, step, interleave(&chosen.policy, &rejected.policy)?)
    }
}
