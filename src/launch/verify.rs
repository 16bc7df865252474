//! Everything read, and one step with each arm: what would fail late fails now.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use serde::Serialize;

use super::observer::Observer;
use super::prepare::ready;
use super::run::trained;
use crate::base::error::{Context, Result, bail};
use crate::plan::{Budget, Plan, RewardFrom, RunSpec};
use crate::record::Status;
use crate::train::Check;

/// What an arm's checks said after one step.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub arm: String,
    pub checks: Vec<Check>,
}

/// Takes one step with each arm, under the plan's first seed, until `abort` is raised.
///
/// # Errors
/// Whatever does not fit, with the arm's name.
pub fn verify(
    plan: &Plan,
    device: Device,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Vec<Verified>> {
    let prepared = ready(plan, device, observer)?;
    if let Some(judge) = prepared.judges.llm() {
        observer.stage(&format!("asking {} one question", plan.judge.model));
        judge.probe()?;
    }
    let mut verified = vec![];
    let runs = plan.runs();
    for run in runs.into_iter().filter(|r| r.seed == plan.seeds[0]) {
        if abort.load(Ordering::Relaxed) {
            break;
        }
        if run.arm.trainer.is_some() {
            observer.note(&format!("arm {}: an external trainer; its program is there", run.arm.name));
            continue;
        }
        observer.stage(&format!("one step of {}", run.arm.name));
        let run = one_step(run)?;
        let result = trained(&prepared, &run, abort, &mut |_| Ok(()), observer)
            .with_context(|| format!("arm {}", run.arm.name))?;
        if result.aborted {
            break;
        }
        if result.row.status != Status::Done {
            bail!("arm {}: {}", run.arm.name, result.row.note);
        }
        verified.push(Verified { arm: run.arm.name, checks: result.checks });
    }
    Ok(verified)
}

/// The run with room for one step of each of its stages: a single step cannot be shared between two.
fn one_step(run: RunSpec) -> Result<RunSpec> {
    let mut arm = run.arm.clone();
    let first = arm.sft_first > 0.0;
    let reward_model = arm.method.online().is_some_and(|o| o.reward == RewardFrom::Model);
    if first {
        arm.sft_first = 0.5;
    }
    if reward_model {
        arm = arm.with(&[("reward_share".to_owned(), toml::Value::Float(0.5))])?;
    }
    let steps = 1 + u64::from(first) + u64::from(reward_model);
    Ok(RunSpec { arm, budget: Budget::Steps(steps), ..run })
}
