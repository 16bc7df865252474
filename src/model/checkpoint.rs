//! Hugging Face directories in and out: `config.json` with `model.safetensors`, whole or in shards.

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::params::{Param, Piece, Spec, layout};
use super::quantize::projections;
use super::shards::{self, SHARD_BYTES};
use super::unread::check_layers;
use crate::base::atomic;
use crate::base::error::{Context, HintExt, Result, anyhow, bail, ensure};
use crate::plan::Quantize;

pub(super) const WHOLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

impl Decoder {
    /// Reads a model directory; weights are converted to `dtype`.
    ///
    /// # Errors
    /// A file that is missing or cut off, an unsupported family, a tensor that is missing (its name) or has
    /// another shape (both shapes), one of a layer that the configuration does not ask for.
    pub fn load(dir: &Path, dtype: DType, device: &Device) -> Result<Self> {
        Self::load_with(dir, dtype, device, Quantize::None)
    }

    pub(super) fn load_with(dir: &Path, dtype: DType, device: &Device, quantize: Quantize) -> Result<Self> {
        let config = read_config(dir)?;
        let files = weight_files(dir)?;
        // SAFETY: the files are mapped while they are read; whoever rewrites a checkpoint under a running
        // program gets undefined numbers, as with every other loader of this format.
        let weights = unsafe { MmapedSafetensors::multi(&files) };
        let weights = weights
            .with_context(|| {
                format!(
                    "reading {}",
                    files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
                )
            })
            .hint("the file may be cut off or no safetensors file: fetch it again")?;
        let names: BTreeSet<String> = weights.tensors().into_iter().map(|(name, _)| name).collect();
        let (specs, ids) = layout(&config);
        check_layers(&config, &specs, &names).with_context(|| format!("loading {}", dir.display()))?;
        let packed = projections(&ids);
        let read = |(index, spec): (usize, Spec)| {
            let param = read_param(spec, &weights, &names, dtype, device)?;
            if packed.contains(&index) { param.in_blocks(quantize) } else { Ok(param) }
        };
        let params = specs
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("loading {}", dir.display()))?;
        Ok(Self::assemble(config, params, dtype, device.clone()))
    }

    /// Writes the weights and then `config.json` such that transformers opens them; the tokenizer's files are the
    /// caller's. Killed in between, it leaves no `config.json`, which is no model: never new weights with an old
    /// configuration.
    ///
    /// # Errors
    /// An adapter that is not merged; a folder that cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_in_shards(dir, SHARD_BYTES)
    }

    /// As [`Self::save`], in files of at most `max_bytes` (a larger tensor goes alone).
    pub fn save_in_shards(&self, dir: &Path, max_bytes: u64) -> Result<()> {
        ensure!(
            self.adapter().is_none(),
            "a model with an adapter is saved by save_adapter, or merged first"
        );
        ensure!(
            !self.is_quantized(),
            "a quantised base is not saved: its checkpoint is where it was read from"
        );
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut source = self.config().source.clone();
        let dtype = Value::from(torch_name(self.dtype()));
        source.shift_remove("torch_dtype");
        source.insert("dtype".to_owned(), dtype.clone());
        // Read by transformers 4, which knows only this name.
        source.insert("torch_dtype".to_owned(), dtype);
        // Last: without it there is no model, and with the old one new weights would load as a third.
        let config = dir.join("config.json");
        atomic::remove(&config)?;
        let mut tensors = Vec::new();
        for param in self.params() {
            for piece in &param.pieces {
                tensors.push((piece.name.clone(), piece_tensor(param, piece)?.to_device(&Device::Cpu)?));
            }
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        shards::write(&tensors, dir, max_bytes)?;
        let text = serde_json::to_string_pretty(&source)? + "\n";
        atomic::write(&config, text.as_bytes())
    }
}

/// The tensor of a checkpoint that is `piece` of `param`.
pub(super) fn piece_tensor(param: &Param, piece: &Piece) -> Result<Tensor> {
    let rows = param.tensor.narrow(0, piece.rows.start, piece.rows.len())?.contiguous()?;
    Ok(piece.stored.write(&rows)?)
}

pub(super) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

/// Reads `config.json` of a model directory.
pub fn read_config(dir: &Path) -> Result<DecoderConfig> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}", path.display()))
        .hint("a model directory holds config.json and model.safetensors")?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    DecoderConfig::from_json(&value).with_context(|| format!("reading {}", path.display()))
}

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    if !index.is_file() {
        let error = anyhow!("{} holds neither {WHOLE} nor {INDEX}", dir.display());
        return Err(error)
            .hint("weights in PyTorch's .bin format are not read: convert them with save_pretrained");
    }
    let text = std::fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("parsing {}", index.display()))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        bail!("{}: no weight_map", index.display());
    };
    let shards: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    // A shard lies beside its index: a path would lead out of the model's folder.
    let is_path = |s: &&&str| Path::new(*s).file_name().is_none_or(|name| name != **s);
    if let Some(path) = shards.iter().find(is_path) {
        bail!("{}: `{path}` is no name of a file in the folder", index.display());
    }
    let missing = shards.iter().find(|s| !dir.join(s).is_file());
    ensure!(missing.is_none(), "{} names {}, which is not there", index.display(), missing.unwrap_or(&""));
    Ok(shards.into_iter().map(|s| dir.join(s)).collect())
}

fn read_param(
    spec: Spec,
    weights: &MmapedSafetensors,
    names: &BTreeSet<String>,
    dtype: DType,
    device: &Device,
) -> Result<Param> {
    let read = |piece: &Piece| -> Result<Tensor> {
        let name = find(&piece.name, names)?;
        let mut wanted = spec.shape.clone();
        wanted[0] = piece.rows.len();
        let wanted = piece.stored.shape(&wanted);
        let tensor = weights.load(name, &Device::Cpu).with_context(|| format!("reading tensor {name}"))?;
        ensure!(
            tensor.dims() == wanted,
            "tensor {name} has shape {:?}, config.json asks for {wanted:?}",
            tensor.dims()
        );
        Ok(piece.stored.read(&tensor.to_dtype(dtype)?)?)
    };
    let pieces = spec.pieces.iter().map(read).collect::<Result<Vec<_>>>()?;
    let tensor = match pieces.as_slice() {
        [one] => one.clone(),
        many => Tensor::cat(many, 0)?,
    };
    Ok(Param::new(spec.pieces, spec.role, tensor.to_device(device)?.contiguous()?))
}

/// The name as it stands in the file: some checkpoints leave the model's prefix off.
pub(super) fn find<'a>(name: &'a str, names: &BTreeSet<String>) -> Result<&'a str> {
    let short = name.split_once('.').map_or(name, |(_, rest)| rest);
    [name, short].into_iter().find(|n| names.contains(*n)).ok_or_else(|| {
        let some: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        anyhow!(
            "tensor {name} is missing; the checkpoint has {} tensors ({}, …)",
            names.len(),
            some.join(", ")
        )
    })
}
