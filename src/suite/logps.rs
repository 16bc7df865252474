//! Log-probs of whole completions, in packed batches.

use crate::base::error::{Result, ensure};
use crate::data::{Sequence, Tokenizer, control};
use crate::model::generate::Advance;
use crate::model::{Decoder, Packed};

/// A model that can be scored: it reads log-probs and it writes.
pub trait Policy: Advance {
    /// log p of each read of the batch (r,).
    fn logps(&self, batch: &Packed) -> Result<Vec<f64>>;

    /// The text that stands between a prompt and what the policy is asked for (CSFT); `None` for most.
    fn control(&self) -> Option<&str> {
        None
    }
}

impl Policy for Decoder {
    fn logps(&self, batch: &Packed) -> Result<Vec<f64>> {
        Decoder::logps(self, batch)
    }
    fn control(&self) -> Option<&str> {
        Decoder::control(self)
    }
}

/// Token ids of [`Policy::control`]; none for most policies.
///
/// # Errors
/// A control text that the tokenizer cannot write.
pub fn control_ids<P: Policy>(policy: &P, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    policy.control().map_or(Ok(vec![]), |text| control::ids(tokenizer, text))
}

/// [`sequence_logps`] of a policy asked as it was trained to be asked: after its control tokens, where it has any.
///
/// # Errors
/// See [`sequence_logps`] and [`control_ids`].
pub fn policy_logps<P: Policy>(
    policy: &P,
    tokenizer: &Tokenizer,
    groups: &[Vec<&Sequence>],
) -> Result<Vec<f64>> {
    let control = control_ids(policy, tokenizer)?;
    if control.is_empty() {
        return sequence_logps(policy, groups);
    }
    let asked: Vec<Vec<Sequence>> =
        groups.iter().map(|g| g.iter().map(|s| s.conditioned(&control)).collect()).collect();
    let groups: Vec<Vec<&Sequence>> = asked.iter().map(|g| g.iter().collect()).collect();
    sequence_logps(policy, &groups)
}

/// Tokens of a batch; enough for the matrix products to be efficient, little enough to bound memory.
const BATCH_TOKENS: usize = 2048;

/// Σ log p(token | before) over the completion of each sequence, in nats.
///
/// `groups` hold sequences with one prompt each, which is computed once. The result is in the order of the
/// groups, flattened.
pub fn sequence_logps<P: Policy>(policy: &P, groups: &[Vec<&Sequence>]) -> Result<Vec<f64>> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    // Groups of similar size together: batches fill evenly.
    order.sort_by_key(|g| (std::cmp::Reverse(computed_tokens(&groups[*g])), *g));
    let firsts: Vec<usize> = groups
        .iter()
        .scan(0, |next, g| {
            let first = *next;
            *next += g.len();
            Some(first)
        })
        .collect();
    let mut sums = vec![0.0; groups.iter().map(Vec::len).sum()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let (mut batch, mut targets, mut taken) = (Packed::default(), Vec::new(), 0);
        for &g in rest {
            if taken > 0 && batch.ids.len() + computed_tokens(&groups[g]) > BATCH_TOKENS {
                break;
            }
            batch.push_group(&groups[g]);
            targets.extend(firsts[g]..firsts[g] + groups[g].len());
            taken += 1;
        }
        let logps = policy.logps(&batch)?;
        ensure!(
            logps.len() == batch.reads.len(),
            "{} log-probs for {} reads",
            logps.len(),
            batch.reads.len()
        );
        for (read, logp) in batch.reads.iter().zip(logps) {
            sums[targets[read.sequence as usize]] += logp;
        }
        rest = &rest[taken..];
    }
    Ok(sums)
}

fn computed_tokens(group: &[&Sequence]) -> usize {
    match group {
        [] => 0,
        [only] => only.ids.len(),
        [head, ..] => head.prompt_len + group.iter().map(|s| s.completion_len()).sum::<usize>(),
    }
}
