//! What a GPU does once: kernels are compiled and loaded, libraries started.

use super::adamw::AdamW;
use super::micro::{micros, scored_micros};
use super::units::Unit;
use crate::base::error::Result;
use crate::kernels::cuda;
use crate::model::{Decoder, Dropout, Gradients};
use crate::objective::Objective;

/// What a step reads of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Log-probs of completions, and of prompts.
    LogProbs { prompts: bool },
    /// The scalar head, at the end of completions.
    Scores,
    /// Log-probs, and the scalar head beside them (a critic).
    Both,
}

impl Reads {
    pub fn of(objective: &dyn Objective) -> Self {
        match objective.reads_scores() {
            true => Self::Scores,
            false => Self::LogProbs { prompts: objective.needs_prompt() },
        }
    }
}

/// Whether the policy's device has anything to warm up; a CPU has not.
pub(super) fn is_due(policy: &Decoder) -> bool {
    policy.device().is_cuda() || cuda::is_emulated()
}

/// Has a GPU compile and load what a step on the first of `units` takes, so that no step's seconds hold it: a budget
/// in seconds would charge it to the first run of a process. Nothing is changed by it.
///
/// # Errors
/// A failing kernel.
pub fn warm_up(
    policy: &Decoder,
    reads: Reads,
    units: &[Unit],
    optimizer: &AdamW,
    gradients: &mut Gradients,
) -> Result<()> {
    if !is_due(policy) {
        return Ok(());
    }
    let first: Vec<&Unit> = units.iter().take(1).collect();
    let batches = match reads {
        Reads::Scores => scored_micros(&first, usize::MAX, policy.pad_token()),
        Reads::LogProbs { prompts } => micros(&first, usize::MAX, prompts),
        Reads::Both => micros(&first, usize::MAX, false),
    };
    for micro in batches {
        let (logps, scalars, tape) = match reads {
            Reads::LogProbs { .. } => {
                let dropout = Some(Dropout { seed: 0, first_row: 0 });
                let (logps, tape) = policy.forward_training(&micro.packed, dropout)?;
                (logps, vec![], tape)
            }
            Reads::Scores | Reads::Both => policy.forward_scalars(&micro.packed, reads == Reads::Both)?,
        };
        policy.backward_scalars(tape, &vec![0.0; logps.len()], &vec![0.0; scalars.len()], gradients)?;
    }
    gradients.global_norm()?;
    optimizer.prepare(policy)?;
    gradients.zero_()?;
    Ok(policy.device().synchronize()?)
}
