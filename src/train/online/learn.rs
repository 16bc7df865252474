//! One pass over a rollout: forward, surrogate, backward, over micro-batches.
//!
//! The first pass asks the policy what recording has just asked it, so recording keeps what backward needs of that
//! forward pass, as far as it fits; the rest is computed again, to the same bits.

use std::collections::VecDeque;

use crate::base::error::{Context, Result, ensure};
use crate::model::{Decoder, Gradients, Packed, Tape};
use crate::objective::online::{Advantages, Part, Rollout, Share, Surrogate, by_sample};
use crate::train::cost::Ledger;
use crate::train::micro::{Micro, micros, push_units};
use crate::train::units::Unit;

/// A forward pass over a micro-batch: (r,) log-probs, (r,) values with a critic, and what backward needs.
struct Forward {
    logps: Vec<f64>,
    values: Vec<f64>,
    tape: Tape,
}

impl Forward {
    fn of(policy: &Decoder, micro: &Micro, critic: bool) -> Result<Self> {
        let (logps, values, tape) = match critic {
            true => policy.forward_scalars(&micro.packed, true)?,
            false => policy.forward(&micro.packed).map(|(logps, tape)| (logps, vec![], tape))?,
        };
        Ok(Self { logps, values, tape })
    }
}

/// The first micro-batches' forward passes under the policy that drew the samples, in order.
#[derive(Default)]
pub struct Kept(VecDeque<Forward>);

/// (t,) log-probs of the samples' tokens under the reference.
///
/// # Errors
/// A forward pass fails.
pub fn reference_logps(reference: &Decoder, units: &[Unit], micro_tokens: usize) -> Result<Vec<f64>> {
    let units: Vec<&Unit> = units.iter().collect();
    let mut logps = vec![];
    for micro in micros(&units, micro_tokens, false) {
        logps.extend(reference.logps(&micro.packed)?);
    }
    Ok(logps)
}

/// Log-probs of the samples, and values of their states, under the policy that drew them, beside `reference`'s; and
/// the forward passes that [`pass`] may take over, at most `keep` bytes.
///
/// The batches are those of [`pass`], and so are the bits: whether kept or computed again, the first pass finds ratios
/// of exactly 1.
///
/// # Errors
/// A forward pass fails; lists that do not fit each other.
pub fn record(
    policy: &Decoder,
    reference: Vec<f64>,
    units: &[Unit],
    rewards: &[f64],
    micro_tokens: usize,
    critic: bool,
    keep: usize,
) -> Result<(Rollout, Kept)> {
    let units: Vec<&Unit> = units.iter().collect();
    let samples = units.first().map_or(1, |u| u.sequences.len());
    let lengths = units.iter().flat_map(|u| &u.sequences).map(|s| s.completion_len()).collect();
    let mut rollout =
        Rollout { samples, lengths, rewards: rewards.to_vec(), reference, ..Rollout::default() };
    let (mut kept, mut bytes, mut room) = (Kept::default(), 0, true);
    for micro in micros(&units, micro_tokens, false) {
        let forward = Forward::of(policy, &micro, critic)?;
        rollout.old.extend(&forward.logps);
        rollout.values.extend(&forward.values);
        bytes += forward.tape.bytes();
        room &= bytes <= keep;
        if room {
            kept.0.push_back(forward);
        }
    }
    rollout.check()?;
    Ok((rollout, kept))
}

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    pub loss: f64,
    pub value_loss: f64,
    pub clipped: usize,
    pub ratios: usize,
    /// Largest |ρ − 1| of a token.
    pub furthest_ratio: f64,
    /// Largest |d loss / d log-prob| or |d loss / d value|.
    pub steepest: f64,
    /// (n,) Σ log π of each sample.
    pub sums: Vec<f64>,
    pub reads: u64,
}

/// Adds the gradient of the surrogate's loss over the whole rollout to `gradients`. `kept` are forward passes over the
/// first micro-batches under the policy as it stands.
///
/// # Errors
/// A forward or backward pass fails.
#[expect(clippy::too_many_arguments, reason = "a rollout, what is made of it, and where its gradient goes")]
pub fn pass(
    policy: &Decoder,
    surrogate: &dyn Surrogate,
    units: &[Unit],
    (rollout, advantages): (&Rollout, &Advantages),
    beta: f64,
    micro_tokens: usize,
    mut kept: Kept,
    gradients: &mut Gradients,
) -> Result<Pass> {
    let units: Vec<&Unit> = units.iter().collect();
    let (mut found, mut token, mut sample) = (Pass::default(), 0, 0);
    for micro in micros(&units, micro_tokens, false) {
        let forward = match kept.0.pop_front() {
            Some(forward) => forward,
            None => Forward::of(policy, &micro, surrogate.critic())?,
        };
        let Forward { logps, values, tape } = forward;
        let tokens = token..token + logps.len();
        let samples = sample..sample + micro.packed.sequences;
        let of_critic = |v: &'_ [f64]| -> Vec<f64> { v.get(tokens.clone()).unwrap_or_default().to_vec() };
        let (old_values, returns) = (of_critic(&rollout.values), of_critic(&advantages.returns));
        let part = Part {
            lengths: rollout
                .lengths
                .get(samples.clone())
                .context("a pass has samples that its rollout lacks")?,
            logps: &logps,
            values: &values,
            old: rollout.old.get(tokens.clone()).context("a pass has tokens that its rollout lacks")?,
            reference: &rollout.reference[tokens.clone()],
            old_values: &old_values,
            advantages: &advantages.advantages[tokens.clone()],
            returns: &returns,
            step_samples: rollout.lengths.len(),
            step_tokens: rollout.tokens(),
        };
        let share = surrogate.share(&part, beta);
        ensure!(share.dlogps.len() == logps.len(), "{}: a gradient is missing", surrogate.name());
        found.note(&part, &share);
        policy.backward_scalars(tape, &share.dlogps, &share.dvalues, gradients)?;
        found.reads += micro.completion_reads();
        (token, sample) = (tokens.end, samples.end);
    }
    Ok(found)
}

impl Pass {
    fn note(&mut self, part: &Part<'_>, share: &Share) {
        self.loss += share.loss;
        self.value_loss += share.value_loss;
        self.clipped += share.clipped;
        self.ratios += share.ratios;
        self.steepest = share.dlogps.iter().chain(&share.dvalues).fold(self.steepest, |s, d| s.max(d.abs()));
        let ratios = part.logps.iter().zip(part.old).map(|(new, old)| (new - old).exp() - 1.0);
        self.furthest_ratio = ratios.fold(self.furthest_ratio, |f, r| f.max(r.abs()));
        self.sums.extend(by_sample(part.lengths, part.logps).map(|s| s.iter().sum::<f64>()));
    }
}

/// FLOPs of a forward pass over the units under the policy's reference, and the cost of an update. The policy's own
/// log-probs are the first update's forward pass, and cost nothing beside it.
pub fn update_cost(policy: &Decoder, units: &[Unit], of: usize) -> (f64, Ledger) {
    let mut packed = Packed::default();
    push_units(&mut packed, units);
    let sequences = || units.iter().flat_map(|u| &u.sequences);
    let cost = Ledger {
        steps: 1,
        examples: sequences().count() as u64,
        policy_tokens: sequences().map(|s| s.ids.len() as u64).sum(),
        completion_tokens: sequences().map(|s| s.completion_len() as u64).sum(),
        computed_tokens: packed.ids.len() as u64,
        flops: policy.training_flops(&packed),
        epochs: units.len() as f64 / of as f64,
        ..Ledger::default()
    };
    (policy.base_flops(&packed), cost)
}
