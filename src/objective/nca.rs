//! Noise-contrastive alignment on pairs (Chen et al. 2024, arXiv 2402.05369):
//!
//! L = − E[log σ(s_w) + ½ log σ(−s_w) + ½ log σ(−s_l)],  s = β log π(y|x)/π_ref(y|x)

use super::batch::{Batch, StepContext, Terms};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::Result;
use crate::plan::BetaSpec;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "nca",
    title: "noise-contrastive alignment",
    feedback: Feedback::Paired,
    needs_reference: true,
    paper: "2402.05369",
};

pub struct Nca {
    beta: f64,
}

impl Nca {
    pub(super) fn new(spec: &BetaSpec) -> Result<Self> {
        Ok(Self { beta: positive("nca", "beta", spec.beta)? })
    }
}

impl Objective for Nca {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        Some(2.0 * std::f64::consts::LN_2)
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (s_w, s_l) = ((chosen.log_ratio()? * self.beta)?, (rejected.log_ratio()? * self.beta)?);
        let noise = (ops::log_sigmoid(&s_w.neg()?)? + ops::log_sigmoid(&s_l.neg()?)?)?;
        let losses = (ops::log_sigmoid(&s_w)? + (noise * 0.5)?)?.neg()?;
        Terms::mean(losses, step, (batch.log_ratios()? * self.beta)?)
    }
}
