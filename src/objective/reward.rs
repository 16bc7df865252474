//! Reward modelling by Bradley and Terry (Stiennon et al. 2020, arXiv 2009.01325, eq. 1; Ouyang et al. 2022,
//! arXiv 2203.02155, eq. 1):
//!
//! loss = −log σ(r(x, y_w) − r(x, y_l))
//!
//! with r the score of the whole sequence. It is blind to a shift of all scores; what is learned are differences.

use super::batch::{Batch, StepContext, Terms, interleave};
use super::ops::log_sigmoid;
use super::registry::{Feedback, MethodInfo, Objective};
use crate::base::error::Result;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "reward",
    title: "Bradley-Terry reward model (`kto-eval train` only)",
    feedback: Feedback::Paired,
    needs_reference: false,
    paper: "2009.01325",
};

pub struct Reward;

impl Objective for Reward {
    fn info(&self) -> &'static MethodInfo {
        &INFO
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
