//! Conditional supervised fine-tuning (Korbak et al. 2023, arXiv 2302.08582, "conditional training"; the
//! form is HALOs' `csft`, a control token c between prompt and completion):
//!
//! L = − Σᵢ log π(yᵢ|xᵢ, cᵢ) / Σᵢ |yᵢ|,  cᵢ = c_D for a desirable, c_U for an undesirable completion
//!
//! The sum covers the completions of both classes, never the control tokens themselves. What comes here has been
//! conditioned already ([`crate::data::Control`]); the trained policy is asked as π(·|x, c_D), for samples
//! and likelihoods alike.

use super::batch::{Batch, StepContext, Terms};
use super::registry::{Feedback, Objective};
use super::sft::likelihood;
use crate::base::error::{Result, ensure};
use crate::plan::ControlSpec;

pub struct Csft;

impl Csft {
    pub(super) fn new(spec: &ControlSpec) -> Result<Self> {
        ensure!(
            spec.desirable_token != spec.undesirable_token,
            "csft: `desirable_token` and `undesirable_token` are both \"{}\": the classes could not be told apart",
            spec.desirable_token
        );
        Ok(Self)
    }
}

impl Objective for Csft {
    fn name(&self) -> &'static str {
        "csft"
    }

    fn feedback(&self) -> Feedback {
        Feedback::Unpaired
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        likelihood(batch, step.completion_tokens())
    }
}
