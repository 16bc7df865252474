//! Conditional supervised fine-tuning (Korbak et al. 2023, arXiv 2302.08582, "conditional training"; the
//! form is HALOs' `csft`, a control token c between prompt and completion):
//!
//! L = − Σᵢ log π(yᵢ|xᵢ, cᵢ) / Σᵢ |yᵢ|,  cᵢ = c_D for a desirable, c_U for an undesirable completion
//!
//! The sum covers the completions of both classes, never the control tokens themselves. What comes here has been
//! conditioned already ([`crate::data::Control`]); the trained policy is asked as π(·|x, c_D), for samples
//! and likelihoods alike.

use super::batch::{Batch, StepContext, Terms};
use super::registry::{Feedback, MethodInfo, Objective};
use super::sft::likelihood;
use crate::base::error::{Result, ensure};
use crate::plan::ControlSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "csft",
    title: "conditional SFT: completions of both classes after a control token each",
    feedback: Feedback::Unpaired,
    needs_reference: false,
    paper: "2302.08582",
};

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
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        likelihood(batch, step.completion_tokens())
    }
}
