//! SFT before a method: `sft_first`, the share of an arm's budget that goes there.

use std::sync::atomic::AtomicBool;

use super::keep::{Keeper, Stage};
use super::observer::Observer;
use super::prepare::Prepared;
use super::rows::{self, Owner};
use crate::base::error::{Context, Result};
use crate::model::Decoder;
use crate::plan::{Method, RunSpec};
use crate::train::{Hooks, Job, ReferenceCache, TrainOutcome, fingerprint, train_from};

/// What the SFT stage left.
pub(super) struct First {
    pub outcome: TrainOutcome,
    /// The policy as it stood then: what the method is pulled towards.
    pub reference: Decoder,
    pub cache: ReferenceCache,
}

/// Trains `policy` by SFT on its share of the run's budget; `None` where the arm has no such stage.
///
/// The order of examples, the learning rate and its schedule are the arm's, over this stage's share. What is spent
/// here is the run's: the method gets what is left. A stage that an earlier process brought to its end is taken from
/// its checkpoint.
///
/// # Errors
/// See [`train`].
pub(super) fn sft_first(
    policy: &mut Decoder,
    prepared: &Prepared,
    run: &RunSpec,
    abort: &AtomicBool,
    keeper: &mut dyn Keeper,
    observer: &mut dyn Observer,
) -> Result<Option<First>> {
    if run.arm.sft_first == 0.0 {
        return Ok(None);
    }
    let owner = Owner::of(run);
    let job = Job {
        method: &Method::Sft,
        spec: &run.arm.train,
        budget: run.budget.part(run.arm.sft_first),
        seed: run.seed,
        max_length: run.data.max_length,
        data: prepared.data.of(&run.data).as_data(),
        reference: None,
    };
    let saved = keeper.resume(Stage::SftFirst, &fingerprint(policy, &job)?, observer)?;
    let checkpoints = keeper.checkpoints(Stage::SftFirst);
    // Both hooks tell the one observer.
    let observer = std::cell::RefCell::new(observer);
    let mut hooks = Hooks {
        step: &mut |metrics| {
            let row = rows::step(&owner, metrics);
            observer.borrow_mut().step(&row);
            keeper.step(&row)
        },
        progress: &mut |progress| observer.borrow_mut().training(progress),
        abort,
    };
    let outcome =
        train_from(policy, &job, &mut hooks, saved, checkpoints.as_ref()).context("the SFT stage")?;
    let reference = policy.duplicate()?;
    let cache = ReferenceCache::open(&outcome.weights, None);
    Ok(Some(First { outcome, reference, cache }))
}
