//! What a step says of itself.

use super::cost::Ledger;
use super::step::StepResult;
use crate::objective::Feedback;

/// The figures of one optimizer step: what `steps.csv` records, less the run's name.
///
/// `None`: does not apply to the method, or the step holds no completion of that class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepMetrics {
    /// From 1.
    pub step: u64,
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Mean implicit reward of chosen or desirable completions.
    pub reward_chosen: Option<f64>,
    pub reward_rejected: Option<f64>,
    pub margin: Option<f64>,
    /// Share of pairs with a positive margin.
    pub accuracy: Option<f64>,
    pub kl_unclamped: Option<f64>,
    pub kl: Option<f64>,
    /// Mean of 1 − 4 σ(s) σ(−s) over the step, s = β(log π/π_ref − z0): 0 where KTO's loss is steepest, 1 where flat.
    pub saturation: Option<f64>,
    pub desirable: u64,
    pub undesirable: u64,
    /// Mean log-prob per completion token.
    pub logp_chosen: Option<f64>,
    pub logp_rejected: Option<f64>,
    pub policy_tokens: u64,
    pub completion_tokens: u64,
    pub kl_tokens: u64,
    /// Policy tokens since the start.
    pub total_policy_tokens: u64,
    pub seconds: f64,
}

impl StepMetrics {
    pub(super) fn new(result: &StepResult, feedback: Feedback, cost: &Ledger, total: &Ledger) -> Self {
        let logps = &result.logps;
        let of_class = |class: bool| (0..logps.desirable.len()).filter(move |&i| logps.desirable[i] == class);
        let reward = |class| mean(of_class(class).filter_map(|i| result.rewards.get(i).copied()));
        let logp = |class| {
            let tokens: usize = of_class(class).map(|i| logps.tokens[i]).sum();
            let sum: f64 = of_class(class).map(|i| logps.policy[i]).sum();
            (tokens > 0).then(|| sum / tokens as f64)
        };
        let (reward_chosen, reward_rejected) = (reward(true), reward(false));
        let margins = result.rewards.chunks_exact(2).map(|pair| f64::from(pair[0] > pair[1]));
        Self {
            step: total.steps,
            loss: result.loss,
            reward_chosen,
            reward_rejected,
            margin: reward_chosen.zip(reward_rejected).map(|(w, l)| w - l),
            accuracy: if feedback == Feedback::Paired { mean(margins) } else { None },
            kl_unclamped: result.z0.map(|(raw, _)| raw),
            kl: result.z0.map(|(_, clamped)| clamped),
            desirable: of_class(true).count() as u64,
            undesirable: of_class(false).count() as u64,
            logp_chosen: logp(true),
            logp_rejected: logp(false),
            policy_tokens: cost.policy_tokens,
            completion_tokens: cost.completion_tokens,
            kl_tokens: cost.kl_tokens,
            total_policy_tokens: total.policy_tokens,
            seconds: cost.train_seconds,
            ..Default::default()
        }
    }

    /// The figures that are present, with their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let optional = [
            ("reward_chosen", self.reward_chosen),
            ("reward_rejected", self.reward_rejected),
            ("margin", self.margin),
            ("accuracy", self.accuracy),
            ("kl_unclamped", self.kl_unclamped),
            ("kl", self.kl),
            ("saturation", self.saturation),
            ("logp_chosen", self.logp_chosen),
            ("logp_rejected", self.logp_rejected),
        ];
        let always =
            [("loss", self.loss), ("grad_norm", self.grad_norm), ("learning_rate", self.learning_rate)];
        always.into_iter().chain(optional.into_iter().filter_map(|(name, x)| Some((name, x?))))
    }
}

/// [`StepMetrics::saturation`] from implicit rewards β log π/π_ref and z0 (nats); absent for an empty list.
pub(super) fn saturation(rewards: &[f64], beta: f64, z0: f64) -> Option<f64> {
    // 1 − 4 σ(s) σ(−s) = tanh²(s/2).
    mean(rewards.iter().map(|r| (0.5 * (r - beta * z0)).tanh().powi(2)))
}

/// Absent for an empty list.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), x| (sum + x, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_is_what_the_gradient_lacks() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (rewards, beta, z0) = ([0.3, -2.0, 5.0], 0.1, 4.0);
        let lacks = |r: &f64| 1.0 - 4.0 * sigmoid(r - beta * z0) * sigmoid(beta * z0 - r);
        let expected = rewards.iter().map(lacks).sum::<f64>() / 3.0;
        assert!((saturation(&rewards, beta, z0).unwrap() - expected).abs() < 1e-12);
        assert_eq!((saturation(&[0.4], beta, z0), saturation(&[], beta, z0)), (Some(0.0), None));
    }
}
