//! Runs an objective on a micro-batch and differentiates it.

use super::batch::{LogProbs, StepContext};
use super::registry::Objective;
use crate::base::error::{Result, ensure};
use candle_core::{Device, Tensor, Var};

/// An objective's value on a micro-batch of n completions.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// This micro-batch's share of the step's loss.
    pub loss: f64,
    /// (m,) loss of each pair or completion.
    pub losses: Vec<f64>,
    /// (n,) implicit rewards, in the order of the sequences; empty where the method has none.
    pub rewards: Vec<f64>,
    /// (n,) d loss / d (policy log-prob sum).
    pub gradient: Vec<f64>,
    /// (n/2,) d loss / d (prompt log-prob sum); empty where prompts are not in the likelihood.
    pub prompt_gradient: Vec<f64>,
}

/// Loss share, per-example losses, rewards and the gradient with respect to each log-prob sum.
///
/// # Errors
/// Shapes that do not fit each other. (A loss that is not finite is no error here: the run decides.)
pub fn evaluate(objective: &dyn Objective, logps: &LogProbs, step: &StepContext) -> Result<Evaluation> {
    ensure!(!logps.policy.is_empty(), "objective {}: an empty micro-batch", objective.name());
    let policy = Var::from_vec(logps.policy.clone(), logps.policy.len(), &Device::Cpu)?;
    let mut batch = logps.batch(policy.as_tensor().clone())?;
    let prompt = batch.prompt.as_ref().map(Var::from_tensor).transpose()?;
    batch.prompt = prompt.as_ref().map(|p| p.as_tensor().clone());

    let terms = objective.terms(&batch, step)?;
    let gradients = terms.share.backward()?;
    let gradient_of = |var: &Var| match gradients.get(var) {
        Some(gradient) => gradient.to_vec1::<f64>(),
        None => Ok(vec![0.0; var.elem_count()]),
    };
    let rewards = terms.rewards.as_ref().map(Tensor::to_vec1::<f64>).transpose()?;
    Ok(Evaluation {
        loss: terms.share.to_scalar()?,
        losses: terms.losses.to_vec1()?,
        rewards: rewards.unwrap_or_default(),
        gradient: gradient_of(&policy)?,
        prompt_gradient: prompt.as_ref().map(gradient_of).transpose()?.unwrap_or_default(),
    })
}
