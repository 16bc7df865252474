//! Saving a run in the middle, and going on to the same bits.
//!
//! A checkpoint is one safetensors file, `step-<n>.safetensors`: the weights that are trained, moments and master weights as
//! tensors, everything else as TOML in its metadata (floats go through text exactly), with a checksum over
//! both. It is written aside, flushed to the disk and renamed; the two newest are kept, so that a damaged
//! one costs the steps since the one before.

use super::adamw::AdamWState;
use super::checks::Watch;
use super::cost::Ledger;
use super::online::OnlineState;
use crate::base::atomic;
use crate::base::error::{Context, Result, ensure};
use crate::base::hash::Hasher;
use crate::data::SamplerState;
use crate::model::Decoder;
use candle_core::{Device, Tensor};
use safetensors::View;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where and how often a run is saved.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// A folder of this run alone.
    pub folder: PathBuf,
    pub every: Interval,
}

/// How much work may be lost at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interval {
    /// Steps from one checkpoint to the next, at least 1.
    Steps(u64),
    /// Wall-clock seconds from one checkpoint to the next.
    Seconds(f64),
}

impl Interval {
    /// Whether a checkpoint is due, `steps` and `since` after the last one.
    pub(super) fn due(self, steps: u64, since: Duration) -> bool {
        match self {
            Self::Steps(every) => steps >= every.max(1),
            Self::Seconds(every) => since.as_secs_f64() >= every,
        }
    }
}

/// A run as it stood after some step.
pub struct Saved {
    pub(super) state: State,
    params: Vec<Tensor>,
    pub(super) optimizer: AdamWState,
}

/// What is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Hash of all that determines the run.
    pub fingerprint: String,
    /// Hash of the weights that training began with.
    pub start: String,
    pub loss: f64,
    pub reward_sum: f64,
    pub reward_count: u64,
    pub updates: u64,
    pub sampler: SamplerState,
    pub ledger: Ledger,
    pub watch: Watch,
    /// Of a run that samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlineState>,
}

/// How many checkpoints are kept.
const KEPT: usize = 2;

impl Saved {
    /// Optimizer steps made: rows after this one are to be dropped before the run goes on.
    pub fn step(&self) -> u64 {
        self.state.ledger.steps
    }

    /// The newest whole checkpoint of the run in `folder`, and a line for each newer one that was damaged.
    pub fn latest(folder: &Path) -> (Option<Self>, Vec<String>) {
        Self::latest_where(folder, &|_| Ok(()))
    }

    /// [`Self::latest`] among those that `usable` has nothing against.
    pub fn latest_where(folder: &Path, usable: &dyn Fn(&Self) -> Result<()>) -> (Option<Self>, Vec<String>) {
        let mut notes = Vec::new();
        for path in files(folder).into_iter().rev() {
            match read(&path).and_then(|saved| usable(&saved).map(|()| saved)) {
                Ok(saved) => return (Some(saved), notes),
                Err(e) => notes.push(format!("{} is not usable and was passed over: {e:#}", path.display())),
            }
        }
        (None, notes)
    }

    /// Hash of all that determines the run that this is of: see [`fingerprint`](super::fingerprint).
    pub fn fingerprint(&self) -> &str {
        &self.state.fingerprint
    }

    /// Puts the saved weights into `policy`.
    pub(super) fn restore_weights(&self, policy: &mut Decoder) -> Result<()> {
        let device = policy.device().clone();
        let params = policy.trained_mut();
        ensure!(
            params.len() == self.params.len(),
            "checkpoint: {} parameters, want {}",
            self.params.len(),
            params.len()
        );
        for (param, saved) in params.iter_mut().zip(&self.params) {
            let (shape, want) = (saved.shape(), param.tensor.shape());
            ensure!(
                shape == want && saved.dtype() == param.tensor.dtype(),
                "checkpoint: {shape:?}, want {want:?}"
            );
            param.tensor = saved.to_device(&device)?;
        }
        Ok(())
    }
}

impl Checkpoints {
    /// Writes a checkpoint and removes all but the newest two.
    ///
    /// # Errors
    /// The folder cannot be written, or the disk is full; what was there before is still whole.
    pub(super) fn write(&self, state: &State, policy: &Decoder, optimizer: &AdamWState) -> Result<()> {
        let path = self.folder.join(format!("step-{:010}.safetensors", state.ledger.steps));
        let tensors = tensors(policy, optimizer)?;
        let text = toml::to_string(state)?;
        let metadata = HashMap::from([
            ("checksum".to_owned(), checksum(&text, tensors.iter().map(|(n, t)| (n.as_str(), t.data())))),
            ("state".to_owned(), text),
        ]);
        let views: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        atomic::write_held_by(&path, |aside| {
            safetensors::serialize_to_file(views, Some(metadata), aside).map_err(system)
        })
        .with_context(|| format!("saving the checkpoint {}", path.display()))?;
        remove_asides(&self.folder);
        let all = files(&self.folder);
        for old in all.iter().take(all.len().saturating_sub(KEPT)) {
            std::fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
        }
        Ok(())
    }
}

/// The operating system's error, where it is one: whoever sees a full disk must be able to tell.
fn system(error: safetensors::SafeTensorError) -> anyhow::Error {
    match error {
        safetensors::SafeTensorError::IoError(e) => e.into(),
        other => other.into(),
    }
}

/// Half-written files of processes that were killed; the folder's lock says that none of them still lives.
fn remove_asides(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "part") {
            // It is in nobody's way; the run's folder goes when the run ends.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Checkpoints in a folder, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let is_ours = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("step-") && name.ends_with(".safetensors")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_ours).collect();
    paths.sort();
    paths
}

/// All tensors by name, on the CPU.
fn tensors(policy: &Decoder, optimizer: &AdamWState) -> Result<Vec<(String, Tensor)>> {
    let params: Vec<Tensor> = policy.trained().iter().map(|p| p.tensor.clone()).collect();
    let groups = [
        ("param", &params),
        ("first", &optimizer.first),
        ("second", &optimizer.second),
        ("master", &optimizer.master),
    ];
    let mut all = Vec::new();
    for (group, tensors) in groups {
        for (i, tensor) in tensors.iter().enumerate() {
            all.push((format!("{group}.{i:05}"), tensor.to_device(&Device::Cpu)?));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

fn checksum<'a>(text: &str, tensors: impl Iterator<Item = (&'a str, std::borrow::Cow<'a, [u8]>)>) -> String {
    let mut hasher = Hasher::new("kto-eval/checkpoint").part(text.as_bytes());
    for (name, bytes) in tensors {
        hasher = hasher.part(name.as_bytes()).part(&bytes);
    }
    hasher.hex()
}

fn read(path: &Path) -> Result<Saved> {
    let bytes = std::fs::read(path)?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| metadata.get(name).with_context(|| format!("no `{name}` in its metadata"));
    let (text, expected) = (field("state")?, field("checksum")?);
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    let mut views = file.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let found = checksum(text, views.iter().map(|(n, v)| (n.as_str(), v.data().into())));
    ensure!(found == *expected, "its checksum does not fit its content");

    let group = |name: &str| -> Result<Vec<Tensor>> {
        let of_group = views.iter().filter(|(n, _)| n.split('.').next() == Some(name));
        of_group.map(|(_, view)| Ok(candle_core::safetensors::Load::load(view, &Device::Cpu)?)).collect()
    };
    let state: State = toml::from_str(text)?;
    let (first, second, master) = (group("first")?, group("second")?, group("master")?);
    let optimizer = AdamWState { updates: state.updates, first, second, master };
    Ok(Saved { params: group("param")?, optimizer, state })
}
