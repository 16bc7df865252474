//! Which examples each step takes: known from the seed and the budget alone, and so before the first update too.

use super::cost::{Ledger, amount, step_cost};
use super::mismatch::{mismatched_sequences, reversed_sequences};
use super::run::Job;
use super::units::{Unit, units};
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::data::{Sampler, SamplerState, Sequence};
use crate::model::Decoder;
use crate::objective::{Feedback, Objective};
use crate::plan::{Budget, Z0};

/// What a run draws its steps from.
pub(super) struct Batches<'a> {
    pub job: &'a Job<'a>,
    pub objective: Box<dyn Objective>,
    pub units: Vec<Unit>,
}

/// A step's units, the sequences of its KL term, and its cost.
pub(super) struct StepBatch {
    pub units: Vec<usize>,
    pub mismatched: Vec<Sequence>,
    pub cost: Ledger,
}

impl<'a> Batches<'a> {
    /// # Errors
    /// Data that the method cannot be trained on, a z0 that no step could estimate, a budget that is not above 0.
    pub fn new(job: &'a Job<'a>, objective: Box<dyn Objective>) -> Result<Self> {
        let units = units(job.data, objective.feedback())?;
        let batches = Self { job, objective, units };
        let (size, examples) = (job.spec.batch_size, batches.units.len());
        if batches.estimates_z0() && (size < 2 || examples < 2) {
            return Err(anyhow!(
                "{}: z0 needs a step of at least 2 examples (batch size {size}, {examples} examples)",
                batches.objective.name(),
            ))
            .hint("raise batch_size, take more data, or set z0 = \"zero\"");
        }
        ensure!(amount(job.budget) > 0.0, "the budget is {}; it must be above 0", amount(job.budget));
        Ok(batches)
    }

    /// Where the first step's examples are drawn from.
    pub fn sampler(&self) -> Sampler {
        Sampler::new(self.units.len(), self.job.spec.order, self.job.seed)
    }

    /// Where those of the step after `state` are drawn from.
    pub fn sampler_at(&self, state: SamplerState) -> Sampler {
        Sampler::restore(self.units.len(), self.job.spec.order, self.job.seed, state)
    }

    fn estimates_z0(&self) -> bool {
        self.objective.z0().is_some_and(|z0| z0 != Z0::Zero)
    }

    /// The step after what `ledger` counts, or `None` where the budget has no room for one.
    ///
    /// # Errors
    /// A budget smaller than the first step.
    pub fn next(
        &self,
        policy: &Decoder,
        sampler: &mut Sampler,
        ledger: &Ledger,
    ) -> Result<Option<StepBatch>> {
        let Job { budget, spec, .. } = self.job;
        let (limit, spent) = (amount(*budget), ledger.spent(*budget));
        // Seconds cannot be known beforehand: the run stops where it is nearest to its budget.
        let half_a_step = match budget {
            Budget::Seconds(_) if ledger.steps > 0 => 0.5 * spent / ledger.steps as f64,
            _ => 0.0,
        };
        if spent + half_a_step >= limit {
            return Ok(None);
        }
        let size = match self.objective.feedback() {
            Feedback::Paired => (spec.batch_size / 2).max(1),
            _ => spec.batch_size.max(1),
        };
        let least = if self.estimates_z0() { 2 } else { 1 };
        let before = sampler.state();
        let mut drawn: Vec<usize> = (0..size).map(|_| sampler.next()).collect();
        let alone = |drawn: &[usize]| least > 1 && drawn.iter().all(|i| *i == drawn[0]);
        // Where an epoch ends within a step, a small step may hold one example twice: z0 needs another's completion,
        // and the step takes one example more.
        while alone(&drawn) {
            drawn.push(sampler.next());
        }
        while drawn.len() >= least && !alone(&drawn) {
            let batch = self.assemble(policy, &drawn)?;
            if spent + batch.cost.spent(*budget) <= limit {
                return Ok(Some(batch));
            }
            drawn.pop();
        }
        if ledger.steps == 0 {
            return Err(anyhow!("the budget of {limit} is smaller than the cost of the first step"))
                .hint("raise the budget, or lower max_length");
        }
        // Nothing was taken: the sampler goes back, so that a run resumed here draws the same and ends again.
        *sampler = self.sampler_at(before);
        Ok(None)
    }

    fn assemble(&self, policy: &Decoder, drawn: &[usize]) -> Result<StepBatch> {
        let units: Vec<&Unit> = drawn.iter().map(|&i| &self.units[i]).collect();
        let mismatched = match self.objective.z0() {
            Some(Z0::Reversed) => reversed_sequences(&self.units, drawn, self.job.max_length),
            Some(z0) => mismatched_sequences(&units, z0, self.job.max_length)?,
            None => vec![],
        };
        let (of, micro) = (self.units.len(), self.job.spec.micro_tokens);
        let cost = step_cost(policy, self.objective.as_ref(), &units, &mismatched, of, micro);
        Ok(StepBatch { units: drawn.to_vec(), mismatched, cost })
    }
}

impl StepBatch {
    /// All that the reference is asked about in this step.
    pub fn sequences<'a>(&'a self, of: &'a [Unit]) -> impl Iterator<Item = &'a Sequence> {
        self.units.iter().flat_map(|&i| &of[i].sequences).chain(&self.mismatched)
    }
}
