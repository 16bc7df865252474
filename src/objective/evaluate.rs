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
    /// (n,) d loss / d Σ log(1 − π(token)); empty where the method does not ask for that sum.
    pub complement_gradient: Vec<f64>,
}

/// Loss share, per-example losses, rewards and the gradient with respect to each log-prob sum.
///
/// # Errors
/// Shapes that do not fit each other. (A loss that is not finite is no error here: the run decides.)
pub fn evaluate(objective: &dyn Objective, logps: &LogProbs, step: &StepContext) -> Result<Evaluation> {
    ensure!(!logps.policy.is_empty(), "objective {}: an empty micro-batch", objective.name());
    let policy = Var::from_vec(logps.policy.clone(), logps.policy.len(), &Device::Cpu)?;
    let mut batch = logps.batch(policy.as_tensor().clone())?;
    let leaf = |given: &mut Option<Tensor>| -> Result<Option<Var>> {
        let var = given.as_ref().map(Var::from_tensor).transpose()?;
        *given = var.as_ref().map(|v| v.as_tensor().clone());
        Ok(var)
    };
    let (prompt, complement) = (leaf(&mut batch.prompt)?, leaf(&mut batch.complement)?);

    let terms = objective.terms(&batch, step)?;
    let gradients = terms.share.backward()?;
    let gradient_of = |var: &Var| match gradients.get(var) {
        Some(gradient) => gradient.to_vec1::<f64>(),
        None => Ok(vec![0.0; var.elem_count()]),
    };
    let gradient_or_none = |var: &Option<Var>| -> Result<Vec<f64>> {
        Ok(var.as_ref().map(gradient_of).transpose()?.unwrap_or_default())
    };
    let rewards = terms.rewards.as_ref().map(Tensor::to_vec1::<f64>).transpose()?;
    Ok(Evaluation {
        loss: terms.share.to_scalar()?,
        losses: terms.losses.to_vec1()?,
        rewards: rewards.unwrap_or_default(),
        gradient: gradient_of(&policy)?,
        prompt_gradient: gradient_or_none(&prompt)?,
        complement_gradient: gradient_or_none(&complement)?,
    })
}
