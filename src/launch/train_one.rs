//! One run on its own: its steps, its ledger, and the model that it leaves.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use super::keep::forget;
use super::merge::{copy_files, same_folder};
use super::observer::Observer;
use super::online::is_online;
use super::prepare::{Prepared, prepare};
use super::reward_model::{margins, reward_quality};
use super::run::trained_in;
use super::training_set::tokenized;
use crate::base::error::{HintExt, Result, anyhow};
use crate::data::load_heldout;
use crate::model::peft::is_adapter;
use crate::model::{Decoder, RewardModel};
use crate::objective;
use crate::plan::{Budget, DataSpec, Method, Plan, RunSpec, WORLD};
use crate::record::{RecordHold, RunRow, Status};
use crate::train::{Interval, Outcome};

/// Where a run's output goes.
#[derive(Clone, Copy, Debug)]
pub struct TrainFolder<'a> {
    pub records: &'a Path,
    pub model: &'a Path,
    /// Delete the records that are there.
    pub force: bool,
    /// How often the run is saved in the middle; `None`: never.
    pub checkpoints: Option<Interval>,
}

/// Trains one run, and saves the model in Hugging Face form. `None`: interrupted; the same call goes on.
///
/// # Errors
/// Input that cannot be trained on, a folder that cannot be written, or that holds a finished run.
pub fn train_one(
    plan: &Plan,
    run: &RunSpec,
    device: Device,
    folder: TrainFolder<'_>,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<RunRow>> {
    let records = RecordHold::take(folder.records, plan, folder.force)?;
    let mut prepared = prepare(plan, device, observer)?;
    prepared.spare_start = spares_start(run)?;
    check_saveable(&prepared, run, folder.model)?;
    let mut writer = records.open()?;
    writer.environment(&prepared.environment)?;
    if let Some(row) = writer.finished(&run.id) {
        if row.status == Status::Done && !holds_model(folder.model) {
            let (records, model) = (folder.records.display(), folder.model.display());
            return Err(anyhow!("{records} holds this run already, and its model is not in {model}"))
                .hint("name the folder that it was saved in, or train again: another --out, or --force");
        }
        forget(folder.records, &run.id)?;
        observer.note(&format!("{} holds this run already", folder.records.display()));
        return Ok(Some(row.clone()));
    }
    observer.run_begins(run, 0, 1);
    let trained = trained_in(&prepared, run, &mut writer, folder.checkpoints, abort, observer)?;
    if trained.aborted {
        return Ok(None);
    }
    for check in &trained.checks {
        let mark = match check.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::NotApplicable => "not applicable",
        };
        observer.note(&format!("{mark}: {} {}", check.name, check.detail));
    }
    writer.rollouts(&trained.rollouts)?;
    writer.phases(&trained.phases)?;
    if trained.row.status == Status::Done && run.arm.method == Method::Reward {
        measure(&trained.policy, &prepared, &run.data, observer)?;
    }
    if trained.row.status == Status::Done {
        save(&trained.policy, &prepared, &run.model.source, folder.model)?;
    }
    writer.run(&trained.row)?;
    forget(folder.records, &run.id)?;
    observer.run_ends(&trained.row);
    Ok(Some(trained.row))
}

/// Whether training can do without the checkpoint that it started from: the method has no reference, or all that the
/// reference will be asked can be asked before the first update. An adapter shares the start's weights anyway.
fn spares_start(run: &RunSpec) -> Result<bool> {
    let arm = &run.arm;
    let online = is_online(&arm.method) || arm.method == Method::Reward;
    if online || arm.sft_first > 0.0 || arm.train.lora.is_on() {
        return Ok(false);
    }
    let asked_first = run.model.reference.is_empty() && !matches!(run.budget, Budget::Seconds(_));
    Ok(asked_first || !objective::build(&arm.method)?.needs_reference())
}

/// Says how a new reward model does on the held-out split, where the data have one.
fn measure(
    trained: &Decoder,
    prepared: &Prepared,
    data: &DataSpec,
    observer: &mut dyn Observer,
) -> Result<()> {
    let model = RewardModel::new(trained.duplicate()?)?;
    let measured = load_heldout(data, &prepared.tokenizer.template())
        .and_then(|heldout| tokenized(data, &heldout.dataset, heldout.format, &prepared.tokenizer, observer))
        .and_then(|heldout| margins(&model, heldout, data));
    match measured {
        Ok((_, margins)) => observer.note(&reward_quality(&margins)?.to_string()),
        Err(error) => observer.note(&format!("not measured on held-out pairs: {error:#}")),
    }
    Ok(())
}

/// Weights and configuration, or the adapter, and the tokenizer beside them.
fn save(policy: &Decoder, prepared: &Prepared, source: &str, dir: &Path) -> Result<()> {
    if policy.adapter().is_some() {
        policy.save_adapter(dir, &base_name(prepared, source))?;
    } else {
        policy.save(dir)?;
        let config = prepared.start_dir.join("generation_config.json");
        copy_files(&config.is_file().then_some(config).into_iter().collect::<Vec<_>>(), dir)?;
    }
    copy_files(&prepared.tokenizer.files(), dir)
}

/// What an adapter calls its base: a hub id as it is, a folder by its full path.
fn base_name(prepared: &Prepared, source: &str) -> String {
    let folder = Path::new(source).is_dir() || source == WORLD;
    let full = prepared.start_dir.canonicalize().ok().filter(|_| folder);
    full.map_or_else(|| source.to_owned(), |path| path.display().to_string())
}

fn holds_model(dir: &Path) -> bool {
    is_adapter(dir) || dir.join("config.json").is_file()
}

/// An adapter names one base; what it was trained on must be that one. Overwriting a checkpoint that is mapped into
/// memory would change it under us.
fn check_saveable(prepared: &Prepared, run: &RunSpec, dir: &Path) -> Result<()> {
    let read = [prepared.start_dir.as_path(), Path::new(&run.model.source), Path::new(&run.model.reference)];
    if let Some(same) = read.into_iter().find(|from| same_folder(from, dir)) {
        return Err(anyhow!("--save-model is {}, a checkpoint that is read from", same.display()))
            .hint("name another folder");
    }
    if prepared.adapted && run.arm.train.lora.is_on() {
        return Err(anyhow!(
            "{} is an adapter itself, so a new one would have no base on disk",
            run.model.source
        ))
        .hint("merge it first (kto-eval merge), and name the merged model");
    }
    Ok(())
}
