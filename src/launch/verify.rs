//! Everything read, and one step with each arm: what would fail late fails now.

use std::sync::atomic::AtomicBool;

use candle_core::Device;
use serde::Serialize;

use super::observer::Observer;
use super::prepare::prepare;
use super::run::trained;
use crate::base::error::{Context, Result, bail};
use crate::plan::{Budget, Plan};
use crate::record::Status;
use crate::train::Check;

/// What an arm's checks said after one step.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub arm: String,
    pub checks: Vec<Check>,
}

/// Takes one step with each arm, under the plan's first seed.
///
/// # Errors
/// Whatever does not fit, with the arm's name.
pub fn verify(
    plan: &Plan,
    device: Device,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Vec<Verified>> {
    let prepared = prepare(plan, device, observer)?;
    let mut verified = vec![];
    let runs = plan.runs();
    for run in runs.into_iter().filter(|r| r.seed == plan.seeds[0]) {
        if let Some(trainer) = &run.arm.trainer {
            super::external::check_program(&run.arm.name, trainer)?;
            observer.note(&format!("arm {}: an external trainer; its program is there", run.arm.name));
            continue;
        }
        observer.stage(&format!("one step of {}", run.arm.name));
        let run = crate::plan::RunSpec { budget: Budget::Steps(1), ..run };
        let result = trained(&prepared, &run, abort, &mut |_| Ok(()), observer)
            .with_context(|| format!("arm {}", run.arm.name))?;
        if result.row.status != Status::Done && !result.aborted {
            bail!("arm {}: {}", run.arm.name, result.row.note);
        }
        verified.push(Verified { arm: run.arm.name, checks: result.checks });
    }
    Ok(verified)
}
