//! Weights as one safetensors file or as several with an index, as transformers names and cuts them.

use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::checkpoint::{INDEX, WHOLE};
use crate::base::atomic;
use crate::base::error::{Context, Result};

/// Most bytes of tensors in one file, unless another limit is asked for: transformers' long-standing 5 GB.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes `tensors` (Hugging Face names, sorted) to `dir`: one `model.safetensors` where they fit into
/// `max_bytes`, else `model-00001-of-0000n.safetensors` with `model.safetensors.index.json`. A tensor is never
/// cut. Weights that the folder held before are removed, and what a kill left half written. Without a `config.json` in
/// the folder, a kill leaves no model that can be loaded: never a mixture.
///
/// # Errors
/// The folder cannot be written, or the disk is full.
pub(super) fn write(tensors: &[(String, Tensor)], dir: &Path, max_bytes: u64) -> Result<()> {
    let shards = cut(tensors, max_bytes);
    let mut written = Vec::new();
    if let [_] = shards[..] {
        write_file(tensors, &dir.join(WHOLE))?;
        written.push(WHOLE.to_owned());
    } else {
        // Without an index the shards are no model until the last one is there.
        remove_others(dir, &[])?;
        let mut map = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            write_file(shard, &dir.join(&name))?;
            map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), Value::from(name.as_str()))));
            written.push(name);
        }
        let total: u64 = tensors.iter().map(|(_, t)| bytes(t)).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        atomic::write(&dir.join(INDEX), (serde_json::to_string_pretty(&index)? + "\n").as_bytes())?;
        written.push(INDEX.to_owned());
    }
    remove_others(dir, &written)
}

fn write_file(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors.iter().map(|(n, t)| (n, t)), Some(metadata))?;
    atomic::write(path, &bytes)
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// Runs of tensors of at most `max` bytes each; a larger tensor stands alone. At least one run.
fn cut(tensors: &[(String, Tensor)], max: u64) -> Vec<&[(String, Tensor)]> {
    let (mut shards, mut start, mut size) = (Vec::new(), 0, 0);
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        if i > start && size + bytes(tensor) > max {
            shards.push(&tensors[start..i]);
            (start, size) = (i, 0);
        }
        size += bytes(tensor);
    }
    shards.push(&tensors[start..]);
    shards
}

/// Removes the folder's other weights, which would be read in place of these or beside them.
fn remove_others(dir: &Path, written: &[String]) -> Result<()> {
    let listing = std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut paths = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    // What makes them a model goes first.
    paths.sort_by_key(|path| !(path.ends_with(INDEX) || path.ends_with(WHOLE)));
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shard = name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
        let half = name.starts_with("model") && name.ends_with(".part");
        if (name == WHOLE || name == INDEX || shard || half) && !written.contains(&name) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
