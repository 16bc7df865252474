//! Supervised fine-tuning: the negative log-likelihood of desirable or chosen completions, averaged over
//! the step's completion tokens (as Hugging Face's and TRL's trainers average):
//!
//! L = − Σᵢ log π(yᵢ|xᵢ) / Σᵢ |yᵢ|

use super::batch::{Batch, StepContext, Terms};
use super::registry::{Feedback, MethodInfo, Objective};
use crate::base::error::Result;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "sft",
    title: "supervised fine-tuning on desirable or chosen completions",
    feedback: Feedback::Completions,
    needs_reference: false,
    paper: "2203.02155",
};

pub struct Sft;

impl Objective for Sft {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        likelihood(batch, step.chosen_tokens)
    }
}

/// The batch's part in the mean negative log-likelihood over all `tokens` of the step that are learned from.
pub(super) fn likelihood(batch: &Batch, tokens: usize) -> Result<Terms> {
    let nll = batch.policy.neg()?;
    let share = (nll.sum_all()? / tokens.max(1) as f64)?;
    Ok(Terms { losses: (nll / &batch.tokens)?, share, rewards: None })
}
