//! An adapter and its base as one checkpoint.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::source::{Opened, open};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::data::tokenizer_files;
use crate::plan::Quantize;

/// Writes W + s·B A, with the configuration and the tokenizer's files, to `out` in Hugging Face form, in files of
/// at most `max_shard_bytes`. Weights are written as they are computed: in fp32. With `force`, in place of a model that
/// `out` holds.
///
/// # Errors
/// A source that is no adapter, an adapter that does not fit its base, `out` one of the folders read from; without
/// `force`, a model in `out`.
pub fn merge(
    source: &str,
    revision: &str,
    out: &Path,
    max_shard_bytes: u64,
    force: bool,
    device: Device,
) -> Result<()> {
    if !force && let Some(file) = model_file(out) {
        return Err(anyhow!("{} holds a model ({file})", out.display()))
            .hint("name another folder with --out, or give --force to write in its place");
    }
    let Opened { decoder, tokenizer_dir, weights_dir } =
        open(source, revision, DType::F32, &device, Quantize::None)?;
    if decoder.adapter().is_none() {
        return Err(anyhow!("{source} is a model without an adapter: there is nothing to merge"))
            .hint("name a directory with adapter_config.json and adapter_model.safetensors");
    }
    let merged = decoder.merged()?;
    let sources = [Path::new(source), &tokenizer_dir, &weights_dir];
    if let Some(same) = sources.into_iter().find(|d| same_folder(d, out)) {
        return Err(anyhow!("--out is {}, which is read from", same.display())).hint("name another folder");
    }
    drop(decoder);
    merged.save_in_shards(out, max_shard_bytes)?;
    copy_files(&tokenizer_files(&tokenizer_dir), out)?;
    let config = weights_dir.join("generation_config.json");
    copy_files(&config.is_file().then_some(config).into_iter().collect::<Vec<_>>(), out)
}

/// A file by which a folder is a model's, or an adapter's.
fn model_file(dir: &Path) -> Option<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.into_iter().find(|name| name == "config.json" || name.ends_with(".safetensors"))
}

/// Whether both paths lead to one folder that exists.
pub(super) fn same_folder(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

pub(super) fn copy_files(files: &[PathBuf], dir: &Path) -> Result<()> {
    for file in files {
        let name = file.file_name().unwrap_or_default().to_owned();
        std::fs::copy(file, dir.join(&name))
            .with_context(|| format!("copying {} to {}", file.display(), dir.display()))?;
    }
    Ok(())
}
