//! What a checkpoint holds and its configuration does not ask for.

use std::collections::BTreeSet;

use super::params::{Spec, layer_prefix};
use super::{checkpoint::find, config::DecoderConfig, config::Family};
use crate::base::error::{HintExt, Result, anyhow};

/// Tensors of a layer that are no parameters: masks and frequencies that older checkpoints keep.
const BUFFERS: [&str; 5] =
    [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

/// Holds the tensors of the layers against those that are read: without one of them it would be another model.
///
/// # Errors
/// A layer beyond those of the configuration; a tensor within one that the configuration leaves out.
pub(super) fn check_layers(config: &DecoderConfig, specs: &[Spec], names: &BTreeSet<String>) -> Result<()> {
    let read: BTreeSet<&str> =
        specs.iter().flat_map(|s| &s.pieces).filter_map(|piece| find(&piece.name, names).ok()).collect();
    let prefix = layer_prefix(config);
    // Some checkpoints leave the model's prefix off.
    let short = prefix.split_once('.').map_or(prefix, |(_, rest)| rest);
    let layer = |name: &str| {
        let rest = name.strip_prefix(prefix).or_else(|| name.strip_prefix(short))?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    let buffer = |name: &str| BUFFERS.iter().any(|ending| name.ends_with(ending));
    let unread = names.iter().map(String::as_str).filter(|name| !read.contains(name) && !buffer(name));
    let left: Vec<(usize, &str)> = unread.filter_map(|name| Some((layer(name)?, name))).collect();
    let (count, key) =
        (config.layers.len(), if config.family == Family::Gpt2 { "n_layer" } else { "num_hidden_layers" });
    if let Some((most, name)) =
        left.iter().max_by_key(|(layer, _)| layer).filter(|(layer, _)| *layer >= count)
    {
        return Err(anyhow!(
            "the checkpoint has {} layers (tensor {name}), and config.json says {key} = {count}",
            most + 1
        ))
        .hint("take the config.json that belongs to these weights");
    }
    match left.first() {
        None => Ok(()),
        Some((_, name)) => Err(anyhow!(
            "the checkpoint has tensor {name}, which config.json does not ask for"
        ))
        .hint("take the config.json that belongs to these weights: the model would be computed without it"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use crate::base::error::render;
    use crate::model::{Decoder, DecoderConfig, Size};

    #[test]
    fn a_configuration_with_less_than_the_weights_is_refused() {
        let size =
            Size { vocab: 11, hidden: 8, layers: 3, heads: 2, kv_heads: 2, intermediate: 12, context: 16 };
        let mut config = DecoderConfig::llama(size).unwrap();
        config.source.insert("attention_bias".into(), true.into());
        let config = DecoderConfig::from_json(&config.source.into()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap().save(dir.path()).unwrap();
        let path = dir.path().join("config.json");
        let whole = std::fs::read_to_string(&path).unwrap();
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Decoder::load(dir.path(), DType::F32, &Device::Cpu).map_err(|e| render(&e))
        };
        load(&whole).unwrap();
        for (from, to, says) in [
            ("layers\": 3", "layers\": 2", "has 3 layers (tensor model.layers.2."),
            ("layers\": 3", "layers\": 2", "config.json says num_hidden_layers = 2"),
            (
                "attention_bias\": true",
                "attention_bias\": false",
                "self_attn.k_proj.bias, which config.json does not",
            ),
        ] {
            assert!(whole.contains(from), "{whole}");
            let text = load(&whole.replace(from, to)).err().expect("refused");
            assert!(text.contains(says) && text.contains("hint:"), "{text}");
        }
    }
}
