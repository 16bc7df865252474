//! Simple preference optimization (Meng et al. 2024, arXiv 2405.14734, eq. 6): the mean log-prob per token
//! is the reward, no reference, a target margin γ:
//!
//! L = − E[log σ(β log π(y_w|x)/|y_w| − β log π(y_l|x)/|y_l| − γ)]

use super::batch::{Batch, StepContext, Terms, interleave};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive, weight};
use crate::base::error::Result;
use crate::plan::SimpoSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "simpo",
    title: "simple preference optimization",
    feedback: Feedback::Paired,
    needs_reference: false,
    paper: "2405.14734",
};

pub struct Simpo {
    beta: f64,
    gamma: f64,
}

impl Simpo {
    pub(super) fn new(spec: &SimpoSpec) -> Result<Self> {
        Ok(Self { beta: positive("simpo", "beta", spec.beta)?, gamma: weight("simpo", "gamma", spec.gamma)? })
    }
}

impl Objective for Simpo {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (reward_w, reward_l) =
            ((chosen.logp_per_token()? * self.beta)?, (rejected.logp_per_token()? * self.beta)?);
        let margin = ((&reward_w - &reward_l)? - self.gamma)?;
        Terms::mean(ops::log_sigmoid(&margin)?.neg()?, step, interleave(&reward_w, &reward_l)?)
    }
}
