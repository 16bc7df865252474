//! Checks that every run makes of itself; each is named in the outcome.

use super::cost::Ledger;
use super::metrics::StepMetrics;
use super::step::StepResult;
use super::units::Unit;
use crate::base::error::{HintExt, Result, anyhow, bail};
use crate::objective::{ClassCounts, Objective, StepContext};
use candle_core::DType;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    Failed,
    /// The run gave no occasion for it; the detail says why.
    NotApplicable,
}

/// One check of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
    pub detail: String,
}

/// Policy equals reference before the first update: rewards 0, losses as the method has them there.
pub const IDENTITY: &str = "step-0 identity";
/// Every trainable tensor gets a finite gradient that is not 0.
pub const GRADIENTS: &str = "gradient reaches every tensor";
/// Training changed the weights.
pub const MOVED: &str = "policy moved";
/// Completion tokens that losses read = completion tokens in the ledger.
pub const TOKENS: &str = "counted tokens equal the ledger";
/// Loss, gradient norm and metrics are finite at every step.
pub const FINITE: &str = "finite loss and metrics";
/// No exploding loss, no dead gradient.
pub const HEALTHY: &str = "loss neither explodes nor dies";

/// How far a policy's log-prob sum may lie from an equal reference's: two batches of different shape round
/// differently. In nats, and per 100 nats of the sum.
const IDENTITY_TOLERANCE: f64 = 1e-3;
/// As [`IDENTITY_TOLERANCE`] for 16-bit parameters, whose activations keep two to three digits: nats times the root of
/// the completion's tokens, whose errors are independent.
const HALF_TOLERANCE: f64 = 0.05;
/// A smoothed loss of this many times the first steps' mean (plus one) is an explosion.
const EXPLOSION: f64 = 4.0;
/// Steps that make up the first steps' mean.
const FIRST_STEPS: u64 = 5;
/// Steps in a row without any gradient that make a run dead.
const DEAD_STEPS: u64 = 5;

/// What the checks remember from step to step; part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// What the step-0 identity found; absent until it has been looked at.
    identity: Option<String>,
    /// Tensors that have had no gradient yet; `None` before the first step that has one at all.
    without_gradient: Option<Vec<String>>,
    reads: u64,
    first_losses: f64,
    smoothed: f64,
    dead: u64,
    steps: u64,
    /// An update was made at a rate above 0.
    #[serde(default)]
    moved: bool,
    /// Why the run is called diverged.
    diverged: Option<(Failure, String)>,
}

/// Which check a diverged run fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Failure {
    NotFinite,
    Unhealthy,
}

/// Why a run whose weights never changed is called diverged.
pub const STOOD_STILL: &str = "the weights are the same after training as before";

impl Watch {
    /// The step-0 identity, at the first step of a run whose policy starts as its reference.
    ///
    /// # Errors
    /// They differ: the message names the example, and what differs.
    pub fn identity(
        &mut self,
        objective: &dyn Objective,
        units: &[&Unit],
        result: &StepResult,
        classes: ClassCounts,
        dtype: DType,
    ) -> Result<()> {
        let half = matches!(dtype, DType::BF16 | DType::F16);
        let ids = units.iter().flat_map(|u| u.sequences.iter().map(|_| u.id.as_str()));
        let refuse = |what: String| -> Result<()> {
            Err(anyhow!("before the first update policy and reference must be equal, but {what}")).hint(
                "the reference is not the starting checkpoint, or its cached log-probs are of another model: \
                 name the reference in the plan, or empty the cache folder",
            )
        };
        let logps = &result.logps;
        let mut furthest = 0.0f64;
        for (((id, policy), reference), &tokens) in
            ids.zip(&logps.policy).zip(&logps.reference).zip(&logps.tokens)
        {
            let off = (policy - reference).abs();
            furthest = furthest.max(off);
            let tolerance = match half {
                true => HALF_TOLERANCE * (tokens.max(1) as f64).sqrt(),
                false => IDENTITY_TOLERANCE * (policy.abs() / 100.0).max(1.0),
            };
            if exceeds(off, tolerance) {
                return refuse(format!(
                    "example {id} has log-prob {policy} under the policy and {reference} under the reference"
                ));
            }
        }
        let longest = logps.tokens.iter().copied().max().unwrap_or(1).max(1);
        let of_step = if half { HALF_TOLERANCE * (longest as f64).sqrt() } else { 10.0 * IDENTITY_TOLERANCE };
        if let Some((raw, _)) = result.z0
            && exceeds(raw, of_step)
        {
            return refuse(format!("z0 is {raw}, not 0"));
        }
        let step = StepContext { classes, ..Default::default() };
        // With 16 bits a loss is as far off as β and the log-probs make it, and those were looked at.
        for (i, loss) in result.losses.iter().enumerate().filter(|_| !half) {
            let desirable = units.get(i).is_none_or(|u| u.desirable);
            let Some(want) = objective.identity_loss(desirable, &step) else { continue };
            if exceeds(loss - want, of_step * want.max(1.0)) {
                return refuse(format!("the loss of example {i} is {loss}, not {want}"));
            }
        }
        let detail = format!("{} completions, log-probs within {furthest:.1e} nats", logps.policy.len());
        self.identity = Some(detail);
        Ok(())
    }

    /// The step-0 identity was looked at elsewhere, and held.
    pub fn identical(&mut self, detail: String) {
        self.identity = Some(detail);
    }

    /// Looks at a step before its update; `norms` are the gradient norms per tensor, asked for only while a
    /// tensor is still without one. `Some`: the run has diverged, and this is why.
    ///
    /// # Errors
    /// A tensor that no gradient reaches, a token counted that the ledger does not have.
    pub fn step(
        &mut self,
        result: &StepResult,
        metrics: &StepMetrics,
        total: &Ledger,
        norms: impl FnOnce() -> Result<Vec<(String, f64)>>,
    ) -> Result<Option<String>> {
        self.steps += 1;
        self.reads += result.completion_reads;
        if self.reads != total.completion_tokens {
            bail!(
                "losses have read {} completion tokens, the ledger says {}",
                self.reads,
                total.completion_tokens
            );
        }
        if let Some((name, value)) = metrics.figures().find(|(_, x)| !x.is_finite()) {
            return Ok(self.diverge(Failure::NotFinite, format!("step {}: {name} is {value}", metrics.step)));
        }
        if result.steepest > 0.0 && self.without_gradient.as_ref().is_none_or(|rest| !rest.is_empty()) {
            self.reached(norms()?)?;
        }
        self.moved |= metrics.learning_rate > 0.0;
        Ok(self.health(metrics, result.steepest))
    }

    /// Strikes the tensors that a gradient has reached.
    fn reached(&mut self, norms: Vec<(String, f64)>) -> Result<()> {
        let still = |name: &String| self.without_gradient.as_ref().is_none_or(|rest| rest.contains(name));
        let rest: Vec<String> =
            norms.into_iter().filter(|(n, x)| *x == 0.0 && still(n)).map(|(n, _)| n).collect();
        // LoRA starts with B = 0, so that A has no gradient until B has moved once; under a budget of seconds the
        // first step's rate is 0.
        if rest.iter().any(|name| self.moved || !name.contains("lora_A")) {
            return Err(anyhow!("no gradient reaches {} tensors: {}", rest.len(), rest.join(", "))).hint(
                "an operation in the model cuts gradients; the run would train a part of the model only",
            );
        }
        self.without_gradient = Some(rest);
        Ok(())
    }

    fn health(&mut self, metrics: &StepMetrics, steepest: f64) -> Option<String> {
        let loss = metrics.loss.abs();
        self.smoothed = if self.steps == 1 { loss } else { 0.9 * self.smoothed + 0.1 * loss };
        if self.steps <= FIRST_STEPS {
            self.first_losses += loss / FIRST_STEPS as f64;
        } else if self.smoothed > EXPLOSION * self.first_losses + 1.0 {
            let (now, then) = (self.smoothed, self.first_losses);
            return self.diverge(
                Failure::Unhealthy,
                format!("step {}: the loss exploded, from {then:.3} to {now:.3}", metrics.step),
            );
        }
        self.dead = if steepest == 0.0 || metrics.grad_norm == 0.0 { self.dead + 1 } else { 0 };
        if self.dead >= DEAD_STEPS {
            let why =
                format!("step {}: no gradient for {} steps, the loss is saturated", metrics.step, self.dead);
            return self.diverge(Failure::Unhealthy, why);
        }
        None
    }

    fn diverge(&mut self, which: Failure, why: String) -> Option<String> {
        self.diverged = Some((which, why.clone()));
        Some(why)
    }

    /// All checks, in a fixed order.
    pub fn report(&self, moved: bool, no_identity: &str) -> Vec<Check> {
        let check = |name, outcome, detail: String| Check { name, outcome, detail };
        let passed = |ok: bool| if ok { Outcome::Passed } else { Outcome::Failed };
        let unless = |name, failure| match &self.diverged {
            Some((which, why)) if *which == failure => check(name, Outcome::Failed, why.clone()),
            _ => check(name, Outcome::Passed, format!("{} steps", self.steps)),
        };
        let identity = match &self.identity {
            Some(detail) => check(IDENTITY, Outcome::Passed, detail.clone()),
            None => check(IDENTITY, Outcome::NotApplicable, no_identity.to_owned()),
        };
        let reach = match &self.without_gradient {
            Some(rest) if rest.is_empty() => check(GRADIENTS, Outcome::Passed, String::new()),
            // Only LoRA's A may wait, and a run of one step gives it no second chance.
            Some(rest) => {
                check(GRADIENTS, Outcome::NotApplicable, format!("not seen yet: {}", rest.join(", ")))
            }
            None => check(GRADIENTS, Outcome::Failed, "no step had a gradient".to_owned()),
        };
        vec![
            identity,
            reach,
            check(MOVED, passed(moved), if moved { String::new() } else { STOOD_STILL.to_owned() }),
            check(TOKENS, Outcome::Passed, format!("{} tokens", self.reads)),
            unless(FINITE, Failure::NotFinite),
            unless(HEALTHY, Failure::Unhealthy),
        ]
    }
}

/// |x| > limit, or x is NaN.
fn exceeds(x: f64, limit: f64) -> bool {
    x.is_nan() || x.abs() > limit
}
