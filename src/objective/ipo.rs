//! Identity preference optimization (Azar et al. 2023, arXiv 2310.12036, eq. 17), τ written as β:
//!
//! L = E[(h − 1/(2β))²],  h = r_w − r_l,  r = log π(y|x)/π_ref(y|x)
//!
//! Length-normalised (the authors' erratum, TRL, HALOs): each r is divided by its completion's tokens.

use super::batch::{Batch, StepContext, Terms};
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::IpoSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "ipo",
    title: "identity preference optimization",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2310.12036",
};

pub struct Ipo {
    beta: f64,
    normalised: bool,
}

impl Ipo {
    pub(super) fn new(spec: &IpoSpec) -> Result<Self> {
        Ok(Self { beta: positive("ipo", "beta", spec.beta)?, normalised: spec.length_normalised })
    }
}

impl Objective for Ipo {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some((0.5 / self.beta).powi(2))
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let h = match self.normalised {
            true => (chosen.log_ratio_per_token()? - rejected.log_ratio_per_token()?)?,
            false => (chosen.log_ratio()? - rejected.log_ratio()?)?,
        };
        let losses = (h - 0.5 / self.beta)?.sqr()?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
