//! Checkpoints as people have them: both generations of `config.json`, stored precisions, tied and untied heads, shards,
//! vocabularies padded beyond the tokenizer's.

mod cli;
mod engine;

use candle_core::{DType, Device, Tensor};
use cli::Place;
use engine::{families, json, largest_difference, sequence, transformers_logps};
use kto_eval::model::{Decoder, DecoderConfig, Packed};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

/// `config.json` of transformers 5 as transformers 4 wrote it.
fn older(config: &Value) -> Value {
    let mut old = config.as_object().unwrap().clone();
    let family = old["model_type"].as_str().unwrap().to_owned();
    let dtype = old.shift_remove("dtype").unwrap();
    old.insert("torch_dtype".into(), dtype);
    old.insert("transformers_version".into(), json!("4.46.0"));
    let kinds = old.shift_remove("layer_types");
    let Some(Value::Object(mut rope)) = old.shift_remove("rope_parameters") else {
        return Value::Object(old);
    };
    if family == "gemma3_text" {
        old.insert("rope_theta".into(), rope["full_attention"]["rope_theta"].clone());
        old.insert("rope_local_base_freq".into(), rope["sliding_attention"]["rope_theta"].clone());
        // The golden model slides in layers 0 and 2: the pattern's every second layer is global.
        assert_eq!(kinds.unwrap()[1], "full_attention");
        old.insert("sliding_window_pattern".into(), json!(2));
        return Value::Object(old);
    }
    let base = rope.shift_remove("rope_theta").unwrap();
    if family == "gpt_neox" {
        old.insert("rotary_emb_base".into(), base);
        old.insert("rotary_pct".into(), rope["partial_rotary_factor"].clone());
    } else {
        old.insert("rope_theta".into(), base);
    }
    let scaled = rope["rope_type"] != "default";
    old.insert("rope_scaling".into(), if scaled { Value::Object(rope) } else { Value::Null });
    Value::Object(old)
}

#[test]
fn both_generations_of_config_json_mean_the_same_model() {
    let dir = families();
    let golden = json(&dir.join("families.json"));
    for name in golden["models"].as_object().unwrap().keys() {
        let new = json(&dir.join(name).join("config.json"));
        let old = older(&new);
        assert!(new.get("rope_parameters").is_some() || name == "gpt2");
        assert!(old.get("rope_parameters").is_none() && old.get("layer_types").is_none());
        let read = |value: &Value| {
            let config = DecoderConfig::from_json(value).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            DecoderConfig { source: Map::new(), ..config }
        };
        assert_eq!(read(&old), read(&new), "{name}");
    }
}

/// Weights of `dir`, rewritten by `change` in place.
fn rewrite(dir: &Path, change: impl Fn(&mut HashMap<String, Tensor>)) {
    let file = dir.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    change(&mut tensors);
    // What is mapped is not overwritten.
    std::fs::remove_file(&file).unwrap();
    candle_core::safetensors::save(&tensors, &file).unwrap();
}

fn small(tied: bool) -> Decoder {
    let config = json!({"model_type": "llama", "vocab_size": 29, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 20, "max_position_embeddings": 64, "initializer_range": 0.3,
        "tie_word_embeddings": tied});
    Decoder::random(DecoderConfig::from_json(&config).unwrap(), 7, DType::F32, &Device::Cpu).unwrap()
}

fn logps(decoder: &Decoder) -> Vec<f64> {
    let row: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 29).collect();
    decoder.logps(&Packed::of([&sequence(&row, 1)])).unwrap()
}

fn load(dir: &Path) -> Decoder {
    Decoder::load(dir, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn half_precision_checkpoints_are_read_as_the_numbers_that_they_hold() {
    for dtype in [DType::BF16, DType::F16] {
        let dir = tempfile::tempdir().unwrap();
        let mut rounded = small(false);
        rounded.save(dir.path()).unwrap();
        rewrite(dir.path(), |tensors| {
            tensors.values_mut().for_each(|t| *t = t.to_dtype(dtype).unwrap());
        });
        for param in rounded.params_mut() {
            param.tensor = param.tensor.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        }
        assert_eq!(logps(&load(dir.path())), logps(&rounded), "{dtype:?}");
        assert!(largest_difference(&logps(&small(false)), &logps(&rounded)) > 1e-5, "something is rounded");
    }
}

#[test]
fn tied_and_untied_heads_whole_and_in_shards() {
    for tied in [true, false] {
        let (decoder, dir) = (small(tied), tempfile::tempdir().unwrap());
        for limit in [u64::MAX, 3000] {
            decoder.save_in_shards(dir.path(), limit).unwrap();
            assert_eq!(dir.path().join("model.safetensors.index.json").is_file(), limit == 3000);
            assert_eq!(logps(&load(dir.path())), logps(&decoder), "tied {tied}, {limit} bytes a file");
        }
        decoder.save(dir.path()).unwrap();
        // A tied checkpoint may hold its head all the same (older writers); one that is not tied must.
        rewrite(dir.path(), |tensors| {
            match tied {
                true => tensors.insert("lm_head.weight".into(), tensors["model.embed_tokens.weight"].clone()),
                false => tensors.remove("lm_head.weight"),
            };
        });
        match tied {
            true => assert_eq!(logps(&load(dir.path())), logps(&decoder)),
            false => {
                let error = Decoder::load(dir.path(), DType::F32, &Device::Cpu).err().unwrap();
                assert!(format!("{error:#}").contains("tensor lm_head.weight is missing"), "{error:#}");
            }
        }
    }
}

#[test]
fn a_save_that_is_cut_short_leaves_no_model_and_the_next_one_nothing_of_it() {
    let (decoder, dir) = (small(true), tempfile::tempdir().unwrap());
    decoder.save(dir.path()).unwrap();
    // The weights cannot be replaced: a folder stands in their place.
    let weights = dir.path().join("model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    std::fs::create_dir(&weights).unwrap();
    decoder.save(dir.path()).unwrap_err();
    assert!(
        !dir.path().join("config.json").exists(),
        "an old configuration beside new weights is a third model"
    );
    std::fs::remove_dir(&weights).unwrap();
    for half in ["model.safetensors.71.part", "model-00001-of-00002.safetensors.72.part"] {
        std::fs::write(dir.path().join(half), "half").unwrap();
    }
    decoder.save(dir.path()).unwrap();
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
}

#[test]
fn a_vocabulary_padded_beyond_the_tokenizers_is_trained_and_scored() {
    let place = Place::new();
    let start = load(&place.path("model"));
    let mut source = start.config().source.clone();
    let vocab = start.config().vocab;
    source.insert("vocab_size".into(), json!(vocab + 27));
    let config = DecoderConfig::from_json(&Value::Object(source)).unwrap();
    Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap().save(&place.path("model")).unwrap();
    place.line("train --method dpo --model model --data data --steps 2 --save-model out").succeeds();
    assert_eq!(json(&place.path("out/config.json"))["vocab_size"], vocab + 27);
    place.run(&["score", "--model", "out", "--reference", "model", "--data", "data"]).succeeds();
    place
        .line("score --model out --suite heldout-prompts --data data --max-examples 4 --out scores")
        .succeeds();
}

/// `pip install torch --index-url https://download.pytorch.org/whl/cpu && pip install transformers`, then
/// `KTO_EVAL_PYTHON=…/python cargo test --test model_checkpoints -- --ignored`.
#[test]
#[ignore = "needs Python with torch and transformers (see the comment above it)"]
fn transformers_gives_the_same_log_probs_under_the_older_config() {
    let families = families();
    let golden = json(&families.join("families.json"));
    for name in golden["models"].as_object().unwrap().keys() {
        let dir = tempfile::tempdir().unwrap();
        let text = older(&json(&families.join(name).join("config.json"))).to_string();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let weights = families.join(name).join("model.safetensors");
        std::fs::copy(weights, dir.path().join("model.safetensors")).unwrap();
        let row: Vec<u32> = (0..60).map(|i| (i * 37 + 11) % 200).collect();
        let wanted = transformers_logps(dir.path(), &row);
        let mine = load(dir.path()).logps(&Packed::of([&sequence(&row, 1)])).unwrap();
        let error = largest_difference(&mine, &wanted);
        println!("{name}: log-probs within {error:.1e}");
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}
