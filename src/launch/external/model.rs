//! The model that a trainer leaves: it must be the starting checkpoint with other, finite numbers.

use std::path::Path;

use candle_core::DType;

use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::launch::prepare::Prepared;
use crate::model::Decoder;
use crate::model::peft::is_adapter;

/// Loads the directory.
///
/// # Errors
/// Nothing there, files that are no checkpoint, another architecture or vocabulary, weights that are not finite
/// (with the tensor's name).
pub fn load(dir: &Path, prepared: &Prepared) -> Result<Decoder> {
    let left: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .take(20)
        .collect();
    if left.is_empty() {
        return Err(anyhow!("the trainer left nothing in its {{out}}"))
            .hint("it must save a Hugging Face directory there: config.json and *.safetensors");
    }
    let start = &prepared.start;
    let policy = match is_adapter(dir) && !dir.join("config.json").is_file() {
        // Merged, so that it is held to the starting checkpoint's own shapes, tensor by tensor.
        true => start.load_adapter(dir).and_then(|p| p.merged()),
        false => Decoder::load(dir, start.dtype(), start.device()),
    };
    let policy = policy
        .with_context(|| format!("the trainer left {}", left.join(", ")))
        .hint("it must leave a full model (config.json, *.safetensors) or a PEFT adapter of the starting checkpoint")?;
    same_architecture(&policy, start)?;
    finite(&policy)?;
    Ok(policy)
}

fn same_architecture(policy: &Decoder, start: &Decoder) -> Result<()> {
    let shapes = |d: &Decoder| -> Vec<(String, Vec<usize>)> {
        let name = |p: &crate::model::Param| p.pieces.first().map_or(String::new(), |x| x.name.clone());
        d.params().iter().map(|p| (name(p), p.tensor.dims().to_vec())).collect()
    };
    let (left, began) = (shapes(policy), shapes(start));
    if let Some(((name, there), (other, here))) = left.iter().zip(&began).find(|(a, b)| a != b) {
        bail!(
            "the trainer left another architecture: {name} {there:?}, the starting checkpoint has {other} {here:?}"
        );
    }
    if left.len() != began.len() {
        bail!(
            "the trainer left another architecture: {} parameter tensors, the starting checkpoint has {}",
            left.len(),
            began.len()
        );
    }
    Ok(())
}

fn finite(policy: &Decoder) -> Result<()> {
    for param in policy.params() {
        // A sum is finite only where every term is, but for an overflow that f64 does not have here.
        let sum = param.tensor.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
        if !sum.is_finite() {
            let name = param.pieces.first().map_or("", |p| p.name.as_str());
            bail!("the trainer left weights that are not finite, in {name}");
        }
    }
    Ok(())
}
