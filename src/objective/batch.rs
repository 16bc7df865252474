//! What goes into an objective and what comes out.

use crate::base::error::{Result, ensure};
use candle_core::{Device, Tensor};

/// Log-prob sums of n completions, as the model and the reference cache give them.
///
/// For paired feedback the sequences alternate: chosen, rejected, chosen, rejected …
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogProbs {
    /// (n,) Σ log π(token) over the completion, nats.
    pub policy: Vec<f64>,
    /// (n,) the same under the reference; empty where the method needs none.
    pub reference: Vec<f64>,
    /// (n,) completion tokens, EOS included.
    pub tokens: Vec<usize>,
    /// (n,) chosen or desirable.
    pub desirable: Vec<bool>,
    /// Prompts, where the method's likelihood covers them; otherwise empty. One per pair.
    /// (n/2,) Σ log π over the prompt's predicted tokens (all but the first).
    pub prompt: Vec<f64>,
    /// (n,) Σ log(1 − π(token)) over the completion, where the method asks for it; otherwise empty.
    pub complement: Vec<f64>,
}

/// Class counts of the training data (KTO's λ) or of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    pub desirable: usize,
    pub undesirable: usize,
}

/// What an objective must know of the whole step, so that micro-batches add up to the step's loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepContext {
    /// Pairs for paired feedback, completions otherwise.
    pub examples: usize,
    /// Tokens of the chosen or desirable completions of the step.
    pub chosen_tokens: usize,
    /// Tokens of the rejected or undesirable ones.
    pub rejected_tokens: usize,
    /// Predicted prompt tokens before them (prompt length − 1 each).
    pub prompt_tokens: usize,
    /// KTO's z0, clamped at 0, nats; no gradient flows through it.
    pub z0: f64,
    /// Class counts of the training data.
    pub classes: ClassCounts,
    /// Running mean of implicit rewards over the steps before this one (BCO's δ).
    pub reward_shift: f64,
}

impl StepContext {
    /// Tokens of all completions of the step.
    pub fn completion_tokens(&self) -> usize {
        self.chosen_tokens + self.rejected_tokens
    }
}

/// A micro-batch as tensors: f64, on the CPU, all (n,).
pub struct Batch {
    /// Differentiated.
    pub policy: Tensor,
    /// Zeros where the method needs no reference.
    pub reference: Tensor,
    pub tokens: Tensor,
    /// 1 for chosen or desirable, 0 otherwise.
    pub desirable: Tensor,
    /// (n/2,) or absent.
    pub prompt: Option<Tensor>,
    /// (n,) or absent; differentiated.
    pub complement: Option<Tensor>,
}

/// The chosen or the rejected completions of p pairs; tensors of shape (p,).
pub struct Side {
    pub policy: Tensor,
    pub reference: Tensor,
    pub tokens: Tensor,
}

/// What an objective computes of a micro-batch.
pub struct Terms {
    /// (m,) loss of each pair or completion. Its mean over the step is the step's loss, save for methods
    /// with a likelihood term that is averaged over tokens (SFT, CSFT, unlikelihood, CPO, ORPO, SLiC).
    pub losses: Tensor,
    /// () this micro-batch's share of the step's loss: the shares of a step sum to its loss.
    pub share: Tensor,
    /// (n,) implicit rewards; absent where the method has none.
    pub rewards: Option<Tensor>,
}

impl Terms {
    /// The step's loss is the mean of `losses` over its examples.
    pub fn mean(losses: Tensor, step: &StepContext, rewards: Tensor) -> Result<Self> {
        let share = (losses.sum_all()? / step.examples as f64)?;
        Ok(Self { losses, share, rewards: Some(rewards) })
    }

    /// Adds `weight` · `nll` / (`tokens` of the whole step) to the loss; `nll` (m,) in nats.
    pub fn plus_likelihood(mut self, nll: &Tensor, weight: f64, tokens: usize) -> Result<Self> {
        self.share = (self.share + (nll.sum_all()? * (weight / tokens.max(1) as f64))?)?;
        Ok(self)
    }
}

impl LogProbs {
    /// (n,) checked tensors; `policy` is whatever leaf the caller differentiates.
    pub(super) fn batch(&self, policy: Tensor) -> Result<Batch> {
        let n = self.policy.len();
        let reference = if self.reference.is_empty() { vec![0.0; n] } else { self.reference.clone() };
        for (what, len) in [
            ("reference", reference.len()),
            ("tokens", self.tokens.len()),
            ("desirable", self.desirable.len()),
        ] {
            ensure!(len == n, "objective: {n} policy log-probs but {len} of `{what}`");
        }
        let floats = |v: Vec<f64>| Tensor::new(v, &Device::Cpu);
        let given = |v: &Vec<f64>| if v.is_empty() { Ok(None) } else { floats(v.clone()).map(Some) };
        let complement = given(&self.complement)?;
        if let Some(complement) = &complement {
            let len = complement.elem_count();
            ensure!(len == n, "objective: {n} policy log-probs but {len} of `complement`");
        }
        Ok(Batch {
            policy,
            reference: floats(reference)?,
            tokens: floats(self.tokens.iter().map(|&t| t as f64).collect())?,
            desirable: floats(self.desirable.iter().map(|&d| f64::from(d)).collect())?,
            prompt: given(&self.prompt)?,
            complement,
        })
    }
}

impl Batch {
    /// (n,) log π/π_ref of each completion.
    pub fn log_ratios(&self) -> Result<Tensor> {
        Ok((&self.policy - &self.reference)?)
    }

    /// Chosen and rejected: the even and the odd sequences.
    pub fn pairs(&self) -> Result<(Side, Side)> {
        let n = self.policy.dims1()?;
        ensure!(n % 2 == 0, "objective: {n} sequences do not make pairs");
        let side = |i: usize| -> Result<Side> {
            let take =
                |x: &Tensor| -> Result<Tensor> { Ok(x.reshape((n / 2, 2))?.narrow(1, i, 1)?.flatten_all()?) };
            Ok(Side {
                policy: take(&self.policy)?,
                reference: take(&self.reference)?,
                tokens: take(&self.tokens)?,
            })
        };
        Ok((side(0)?, side(1)?))
    }
}

impl Side {
    /// (p,) log π/π_ref.
    pub fn log_ratio(&self) -> Result<Tensor> {
        Ok((&self.policy - &self.reference)?)
    }

    /// (p,) log π/π_ref per completion token.
    pub fn log_ratio_per_token(&self) -> Result<Tensor> {
        Ok((self.log_ratio()? / &self.tokens)?)
    }

    /// (p,) mean log π per completion token.
    pub fn logp_per_token(&self) -> Result<Tensor> {
        Ok((&self.policy / &self.tokens)?)
    }
}

/// chosen and rejected (p,) side by side again: (2p,) in the order of [`LogProbs`].
pub fn interleave(chosen: &Tensor, rejected: &Tensor) -> Result<Tensor> {
    Ok(Tensor::stack(&[chosen, rejected], 1)?.flatten_all()?)
}
