//! Odds-ratio preference optimization (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7), λ written as β:
//!
//! L = L_NLL(chosen) − β E[log σ(log odds(y_w|x) − log odds(y_l|x))],
//! odds(y|x) = p/(1 − p),  log p = log π(y|x)/|y|
//!
//! L_NLL is averaged over the step's tokens; it covers the prompt too in the authors' code and in TRL
//! (`likelihood = "sequence"`), or only the completion (`"completion"`).

use super::batch::{Batch, StepContext, Terms, interleave};
use super::ops;
use super::registry::{Feedback, MethodInfo, Objective, positive};
use crate::base::error::{Context, Result};
use crate::plan::{Likelihood, OrpoSpec};
use candle_core::Tensor;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "orpo",
    title: "odds-ratio preference optimization",
    feedback: Feedback::Paired,
    needs_reference: false,
    paper: "2403.07691",
};

pub struct Orpo {
    beta: f64,
    likelihood: Likelihood,
}

impl Orpo {
    pub(super) fn new(spec: &OrpoSpec) -> Result<Self> {
        Ok(Self { beta: positive("orpo", "beta", spec.beta)?, likelihood: spec.likelihood })
    }
}

impl Objective for Orpo {
    fn info(&self) -> &'static MethodInfo {
        &INFO
    }

    fn needs_prompt(&self) -> bool {
        self.likelihood == Likelihood::Sequence
    }

    fn identity_loss(&self, _desirable: bool, _step: &StepContext) -> Option<f64> {
        None
    }

    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms> {
        let (chosen, rejected) = batch.pairs()?;
        let (logp_w, logp_l) = (chosen.logp_per_token()?, rejected.logp_per_token()?);
        let log_odds = |logp: &Tensor| -> Result<Tensor> { Ok((logp - ops::log1m_exp(logp)?)?) };
        let ratio = (log_odds(&logp_w)? - log_odds(&logp_l)?)?;
        let losses = (ops::log_sigmoid(&ratio)? * -self.beta)?;
        let rewards = (interleave(&logp_w, &logp_l)? * self.beta)?;
        let mut nll = chosen.policy.neg()?;
        let mut tokens = step.chosen_tokens;
        if self.needs_prompt() {
            let prompt = batch.prompt.as_ref().context("orpo: the prompts' log-probs are missing")?;
            nll = (nll - prompt)?;
            tokens += step.prompt_tokens;
        }
        Terms::mean(losses, step, rewards)?.plus_likelihood(&nll, 1.0, tokens)
    }
}
