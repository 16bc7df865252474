//! One optimizer step's loss and gradient, over micro-batches.

use super::micro::{Micro, micros, packs, scored_micros, sums};
use super::reference::Reference;
use super::units::Unit;
use crate::base::error::{Context, Result, ensure};
use crate::data::Sequence;
use crate::kernels::cpu;
use crate::model::{Decoder, Dropout, Gradients};
use crate::objective::{
    ClassCounts, Evaluation, LogProbs, Objective, StepContext, evaluate, kto, log_complement,
};
use std::time::{Duration, Instant};

/// Passes without a backward pass keep no tape: twice the tokens at a time still take less memory.
pub(super) const FORWARD_ONLY: usize = 2;

/// What a step is computed from.
pub struct StepInput<'a> {
    pub units: &'a [&'a Unit],
    /// Prompts with mismatched completions, for z0; empty where the method has none.
    pub mismatched: &'a [Sequence],
    /// Absent where the method needs none.
    pub reference: Option<Reference<'a>>,
    pub micro_tokens: usize,
    /// Seed of the step's dropout; `None`: no dropout. z0 is estimated without it.
    pub dropout: Option<u64>,
    /// Class counts of the training data.
    pub classes: ClassCounts,
    pub reward_shift: f64,
}

/// A step of m examples with n completions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepResult {
    pub loss: f64,
    /// (m,)
    pub losses: Vec<f64>,
    /// (n,) empty where the method has none.
    pub rewards: Vec<f64>,
    /// (n,) log-prob sums, tokens and classes, in the order of the units' sequences.
    pub logps: LogProbs,
    /// z0 before and after the clamp.
    pub z0: Option<(f64, f64)>,
    /// Largest |d loss / d log-prob sum|: 0 where the loss is saturated.
    pub steepest: f64,
    /// Completion tokens that the loss read.
    pub completion_reads: u64,
    pub reference_time: Duration,
}

/// Adds the gradient of the step's loss to `gradients`; the policy is not changed.
///
/// z0 comes first, from all mismatched completions of the step; then each micro-batch is run forward, its
/// share of the loss differentiated, and run backward. However the step is split, the sum is the same.
///
/// # Errors
/// Shapes that do not fit, a failing kernel.
pub fn compute_step(
    policy: &Decoder,
    objective: &dyn Objective,
    input: &StepInput<'_>,
    gradients: &mut Gradients,
) -> Result<StepResult> {
    cpu::on_pool(|| step_on_pool(policy, objective, input, gradients))
}

fn step_on_pool(
    policy: &Decoder,
    objective: &dyn Objective,
    input: &StepInput<'_>,
    gradients: &mut Gradients,
) -> Result<StepResult> {
    let started = Instant::now();
    let reference = reference_logps(objective, input)?;
    let mut result = StepResult { reference_time: started.elapsed(), ..Default::default() };
    if objective.z0().is_some() {
        result.z0 = Some(reference_point(policy, input, &mut result.reference_time)?);
    }
    let context = context(objective, input, result.z0);
    let (mut at, mut first_row) = (0, 0);
    let batches = match objective.reads_scores() {
        true => scored_micros(input.units, input.micro_tokens, policy.pad_token()),
        false => micros(input.units, input.micro_tokens, objective.needs_prompt()),
    };
    for micro in batches {
        let mut part = describe(&input.units[micro.units.clone()]);
        let end = at + part.tokens.len();
        part.reference = reference.get(at..end).unwrap_or_default().to_vec();
        let dropout = input.dropout.map(|seed| Dropout { seed, first_row });
        let value = differentiate(policy, objective, &micro, &mut part, &context, dropout, gradients)?;
        at = end;
        first_row += micro.packed.ids.len() as u64;
        result.loss += value.loss;
        let steepness = value.gradient.iter().chain(&value.complement_gradient);
        result.steepest = steepness.fold(result.steepest, |s, g| s.max(g.abs()));
        result.losses.extend(value.losses);
        result.rewards.extend(value.rewards);
        result.completion_reads += micro.completion_reads();
        append(&mut result.logps, part);
    }
    Ok(result)
}

/// Forward, loss and backward of one micro-batch; `part` gets the policy's log-probs. Returns the objective's value with its
/// gradients by log-prob.
fn differentiate(
    policy: &Decoder,
    objective: &dyn Objective,
    micro: &Micro,
    part: &mut LogProbs,
    context: &StepContext,
    dropout: Option<Dropout>,
    gradients: &mut Gradients,
) -> Result<Evaluation> {
    let scored = objective.reads_scores();
    let (logps, tape) = match scored {
        true => policy.forward_scalars(&micro.packed, false).map(|(_, scores, tape)| (scores, tape))?,
        false => policy.forward_training(&micro.packed, dropout)?,
    };
    (part.policy, part.prompt) = micro.split(&logps);
    let complements: Vec<(f64, f64)> = match objective.needs_complement() {
        true => logps.iter().map(|&logp| log_complement(logp)).collect(),
        false => vec![],
    };
    if !complements.is_empty() {
        part.complement = micro.split(&complements.iter().map(|c| c.0).collect::<Vec<_>>()).0;
    }

    let value = evaluate(objective, part, context)?;
    let mut gradient = micro.spread(&value.gradient, &value.prompt_gradient);
    if !complements.is_empty() {
        let of_complement = micro.spread(&value.complement_gradient, &[]);
        let parts = of_complement.iter().zip(&complements);
        gradient.iter_mut().zip(parts).for_each(|(total, (d, (_, slope)))| *total += d * slope);
    }
    match scored {
        true => policy.backward_scalars(tape, &[], &gradient, gradients)?,
        false => policy.backward(tape, &gradient, gradients)?,
    }
    Ok(value)
}

/// (n,) for the step's sequences; empty where the method needs no reference.
fn reference_logps(objective: &dyn Objective, input: &StepInput<'_>) -> Result<Vec<f64>> {
    if !objective.needs_reference() {
        return Ok(vec![]);
    }
    let sequences: Vec<&Sequence> = input.units.iter().flat_map(|u| &u.sequences).collect();
    let pack_tokens = FORWARD_ONLY * input.micro_tokens;
    let reference =
        input.reference.with_context(|| format!("{} needs a reference model", objective.name()))?;
    if objective.z0().is_some() && !input.mismatched.is_empty() {
        // Those of the KL term too, now: they have the same prompts, and will be known when they are asked for.
        let all: Vec<&Sequence> = sequences.iter().copied().chain(input.mismatched).collect();
        reference.logps(&all, pack_tokens)?;
    }
    reference.logps(&sequences, pack_tokens)
}

/// z0 of the whole step, before and after the clamp.
fn reference_point(policy: &Decoder, input: &StepInput<'_>, spent: &mut Duration) -> Result<(f64, f64)> {
    let sequences: Vec<&Sequence> = input.mismatched.iter().collect();
    let mut ratios = Vec::with_capacity(sequences.len());
    for packed in packs(&sequences, FORWARD_ONLY * input.micro_tokens) {
        ratios.extend(sums(&packed, &policy.logps(&packed)?));
    }
    if let Some(reference) = input.reference.filter(|_| !sequences.is_empty()) {
        let started = Instant::now();
        let under_reference = reference.logps(&sequences, FORWARD_ONLY * input.micro_tokens)?;
        *spent += started.elapsed();
        ensure!(
            under_reference.len() == ratios.len(),
            "z0: policy and reference disagree on the completions"
        );
        ratios.iter_mut().zip(under_reference).for_each(|(ratio, r)| *ratio -= r);
    }
    Ok(kto::z0(&ratios))
}

fn context(objective: &dyn Objective, input: &StepInput<'_>, z0: Option<(f64, f64)>) -> StepContext {
    let sides = || input.units.iter().flat_map(|u| u.sides());
    let tokens = |class| sides().filter(|(_, d)| *d == class).map(|(s, _)| s.completion_len()).sum();
    let prompt = |u: &&Unit| u.sequences.first().map_or(0, |s| s.prompt_len - 1);
    StepContext {
        examples: input.units.len(),
        chosen_tokens: tokens(true),
        rejected_tokens: tokens(false),
        prompt_tokens: if objective.needs_prompt() { input.units.iter().map(prompt).sum() } else { 0 },
        z0: z0.map_or(0.0, |(_, clamped)| clamped),
        classes: input.classes,
        reward_shift: input.reward_shift,
    }
}

/// Tokens and classes of the units' completions; no log-probs yet.
fn describe(units: &[&Unit]) -> LogProbs {
    let (tokens, desirable) =
        units.iter().flat_map(|u| u.sides()).map(|(s, d)| (s.completion_len(), d)).unzip();
    LogProbs { tokens, desirable, ..Default::default() }
}

fn append(all: &mut LogProbs, part: LogProbs) {
    all.policy.extend(part.policy);
    all.reference.extend(part.reference);
    all.tokens.extend(part.tokens);
    all.desirable.extend(part.desirable);
    all.prompt.extend(part.prompt);
    all.complement.extend(part.complement);
}
