//! What a GPU does once: kernels are compiled and loaded, libraries started.

use super::adamw::AdamW;
use super::micro::{micros, scored_micros};
use super::units::Unit;
use crate::base::error::Result;
use crate::kernels::cuda;
use crate::model::{Decoder, Dropout, Gradients};
use crate::objective::Objective;

/// Has a GPU compile and load what a step takes, so that no step's seconds hold it: a budget in seconds would charge
/// it to the first run of a process. Nothing is changed by it; a CPU has nothing to warm up.
///
/// # Errors
/// A failing kernel.
pub fn warm_up(
    policy: &Decoder,
    objective: &dyn Objective,
    units: &[Unit],
    optimizer: &AdamW,
    gradients: &mut Gradients,
) -> Result<()> {
    if !policy.device().is_cuda() && !cuda::is_emulated() {
        return Ok(());
    }
    let scored = objective.reads_scores();
    let first: Vec<&Unit> = units.iter().take(1).collect();
    let batches = match scored {
        true => scored_micros(&first, usize::MAX, policy.pad_token()),
        false => micros(&first, usize::MAX, objective.needs_prompt()),
    };
    for micro in batches {
        if scored {
            let (_, scores, tape) = policy.forward_scalars(&micro.packed, false)?;
            policy.backward_scalars(tape, &[], &vec![0.0; scores.len()], gradients)?;
        } else {
            let dropout = Some(Dropout { seed: 0, first_row: 0 });
            let (logps, tape) = policy.forward_training(&micro.packed, dropout)?;
            policy.backward(tape, &vec![0.0; logps.len()], gradients)?;
        }
    }
    gradients.global_norm()?;
    optimizer.prepare(policy)?;
    gradients.zero_()?;
    Ok(policy.device().synchronize()?)
}
