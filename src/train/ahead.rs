//! All that a run will ask its reference, asked before the first update: the policy still is the reference then, and no
//! second copy of the weights is needed once it moves.

use super::batches::{Batches, StepBatch};
use super::cost::Ledger;
use super::reference::{Reference, ReferenceCache};
use super::run::{Hooks, Progress};
use super::step::FORWARD_ONLY;
use crate::base::error::Result;
use crate::data::{Sampler, Sequence};
use crate::kernels::cpu;
use crate::model::Decoder;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Packed batches between two looks at the abort flag: sequences of one prompt in neighbouring steps share it, and what
/// is wanted of a mismatched sequence is forgotten again.
const PACKS: usize = 4;

/// What asking took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub seconds: f64,
    pub aborted: bool,
}

/// Asks about every step that `sampler` and `ledger` have before them, and keeps the answers in the cache.
///
/// # Errors
/// A failing forward pass, a budget smaller than the first step, a cache that cannot be written.
pub(super) fn ask(
    policy: &Decoder,
    cache: &ReferenceCache,
    batches: &Batches<'_>,
    (mut sampler, mut ledger): (Sampler, Ledger),
    hooks: &mut Hooks<'_>,
) -> Result<Asked> {
    let (began, reference) = (Instant::now(), Reference::new(policy, cache));
    let pack_tokens = FORWARD_ONLY * batches.job.spec.micro_tokens;
    let logps = |steps: &[StepBatch]| {
        let wanted: Vec<&Sequence> = steps.iter().flat_map(|s| s.sequences(&batches.units)).collect();
        cpu::on_pool(|| reference.logps(&wanted, pack_tokens))
    };
    let (mut steps, mut tokens, mut aborted) = (Vec::new(), 0, false);
    while !aborted && let Some(step) = batches.next(policy, &mut sampler, &ledger)? {
        ledger.add(&step.cost);
        tokens += step.cost.reference_tokens as usize;
        steps.push(step);
        if tokens >= PACKS * pack_tokens {
            logps(&steps)?;
            (steps, tokens) = (Vec::new(), 0);
            (hooks.progress)(Progress {
                step: ledger.steps,
                asking: true,
                fraction: ledger.fraction(batches.job.budget),
                loss: f64::NAN,
                policy_tokens: ledger.policy_tokens,
            });
            aborted = hooks.abort.load(Ordering::Relaxed);
        }
    }
    logps(&steps)?;
    cache.save()?;
    Ok(Asked { seconds: began.elapsed().as_secs_f64(), aborted })
}
