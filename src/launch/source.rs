//! A model by name: a checkpoint, or an adapter with the base that it names.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::data::resolve_model;
use crate::model::Decoder;
use crate::model::peft::{base_of, is_adapter, read_adapter_config};
use crate::plan::Quantize;

/// A model as loaded.
pub struct Opened {
    /// With its adapter, where it has one.
    pub decoder: Decoder,
    /// Where its tokenizer is: beside the adapter, or with the base.
    pub tokenizer_dir: PathBuf,
    /// The checkpoint's own folder (the base's, for an adapter).
    pub weights_dir: PathBuf,
}

/// Opens a hub id, a model directory, or a directory with an adapter in PEFT's form, whose base is resolved as
/// any model is; a relative path may also stand beside the adapter's own folder. `quantize` is how the weights (the
/// base's, for an adapter) are kept in memory.
///
/// # Errors
/// Whatever is missing or does not fit; the message names it.
pub fn open(
    source: &str,
    revision: &str,
    dtype: DType,
    device: &Device,
    quantize: Quantize,
) -> Result<Opened> {
    let dir = resolve_model(source, revision)?;
    open_dir(&dir, dtype, device, quantize)
}

/// Refuses a model that gives scores where one is needed that gives log-probs.
///
/// # Errors
/// See there.
pub(super) fn writes(decoder: &Decoder, source: &str) -> Result<()> {
    if decoder.config().scalar.is_none() {
        return Ok(());
    }
    Err(anyhow!("{source} is a reward model (a sequence classifier): it gives scores and writes nothing, so it has no log-probs"))
        .hint("name a language model; `kto-eval reward --model RM --data D` measures a reward model")
}

/// As [`open`], for a directory.
pub fn open_dir(dir: &Path, dtype: DType, device: &Device, quantize: Quantize) -> Result<Opened> {
    if !is_adapter(dir) {
        let decoder = Decoder::load_quantized(dir, dtype, device, quantize)?;
        return Ok(Opened { decoder, tokenizer_dir: dir.to_owned(), weights_dir: dir.to_owned() });
    }
    let config = read_adapter_config(dir)?;
    let base = base_of(dir, &config)?;
    let revision = config.get("revision").and_then(|r| r.as_str()).unwrap_or("main");
    let beside = dir.canonicalize().ok().and_then(|d| Some(d.parent()?.join(&base)));
    let beside = beside.filter(|p| !Path::new(&base).is_dir() && p.is_dir());
    let weights_dir = match beside {
        Some(path) => path,
        None => resolve_model(&base, revision)
            .with_context(|| format!("the base of the adapter {}", dir.display()))?,
    };
    let decoder = Decoder::load_quantized(&weights_dir, dtype, device, quantize)?.load_adapter(dir)?;
    let own = dir.join("tokenizer.json").is_file();
    let tokenizer_dir = if own { dir.to_owned() } else { weights_dir.clone() };
    Ok(Opened { decoder, tokenizer_dir, weights_dir })
}
