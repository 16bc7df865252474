//! The world's tokenizer, as the files of any Hugging Face model: one token a word.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::base::error::{Context, Result};

use super::words::{SPECIAL, vocabulary};

/// `tokenizer.json`: WordLevel on whitespace.
pub fn tokenizer_json() -> Value {
    let vocabulary = vocabulary();
    let vocab: Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, w)| (w.clone(), json!(id))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[2]},
    })
}

/// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`.
///
/// # Errors
/// If a file cannot be written.
pub fn write_tokenizer(dir: &Path) -> Result<()> {
    let [eos, pad, unk] = SPECIAL;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": unk,
        "model_max_length": super::build::MAX_POSITIONS,
        "clean_up_tokenization_spaces": false,
    });
    for (name, value) in [("tokenizer.json", tokenizer_json()), ("tokenizer_config.json", config)] {
        let path = dir.join(name);
        let text = format!("{value:#}\n");
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
