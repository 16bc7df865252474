//! LoRA: gradients, PEFT's files in and out, merging, training, and adapters that do not fit.

mod cli;
mod engine;

use candle_core::{DType, Device};
use cli::Place;
use engine::adapters::{self, FAMILIES, batch};
use engine::{
    assert_gradients, families, flat, floats, ids, json, largest_difference, numbers, sequence,
    transformers_logps,
};
use kto_eval::base::error::render;
use kto_eval::model::peft::is_adapter;
use kto_eval::model::{Decoder, DecoderConfig, Dropout, Gradients, Packed};
use kto_eval::plan::{LoraSpec, Quantize};
use serde_json::{Value, json};

fn decoder(family: &str) -> Decoder {
    adapters::decoder(family, 12, 3, 0.3, DType::F64)
}

fn lora(dropout: f64) -> LoraSpec {
    LoraSpec { rank: 3, alpha: 5.0, dropout, target_modules: vec!["all-linear".into()], use_rslora: false }
}

/// With every B away from 0.
fn moved(family: &str, spec: &LoraSpec) -> Decoder {
    adapters::moved(&decoder(family), spec, 0.3)
}

#[test]
fn an_adapter_begins_as_its_base_and_shares_its_weights() {
    for family in FAMILIES {
        let base = decoder(family);
        let adapted = base.with_adapter(&lora(0.0), 3).unwrap();
        assert_eq!(base.logps(&batch()).unwrap(), adapted.logps(&batch()).unwrap(), "{family}");
        assert_eq!(base.weights_hash().unwrap(), adapted.weights_hash().unwrap(), "B is 0");
        assert_ne!(base.weights_hash().unwrap(), moved(family, &lora(0.0)).weights_hash().unwrap());
        assert!(adapted.num_trained() < base.num_params() && adapted.num_params() == base.num_params());
        let again = base.with_adapter(&lora(0.0), 3).unwrap();
        let other = base.with_adapter(&lora(0.0), 4).unwrap();
        let a = |d: &Decoder| flat(&d.trained()[0].tensor);
        assert_eq!(a(&adapted), a(&again), "one seed, one draw");
        assert_ne!(a(&adapted), a(&other));
        let bound = 1.0 / 12f64.sqrt();
        let largest = a(&adapted).iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(largest <= bound && largest > 0.8 * bound, "{largest} for a bound of {bound}");
    }
}

#[test]
fn gradients_of_adapters_are_those_of_finite_differences_with_and_without_dropout() {
    let packed = batch();
    let dlogps = numbers("dlogps", packed.reads.len());
    for (family, p) in FAMILIES.into_iter().flat_map(|f| [(f, 0.0), (f, 0.3)]) {
        for checkpointing in [false, true] {
            let mut decoder = moved(family, &lora(p));
            decoder.set_checkpointing(checkpointing);
            let draws = Some(Dropout { seed: 11, first_row: 100 });
            let (logps, tape) = decoder.forward_training(&packed, draws).unwrap();
            let plain = decoder.logps(&packed).unwrap();
            assert_eq!(
                largest_difference(&logps, &plain) > 1e-6,
                p > 0.0,
                "{family}: dropout is for training"
            );
            let mut grads = Gradients::zeros(&decoder).unwrap();
            decoder.backward(tape, &dlogps, &mut grads).unwrap();
            let loss = |d: &Decoder| {
                let logps = d.forward_training(&packed, draws).unwrap().0;
                logps.iter().zip(&dlogps).map(|(l, w)| l * w).sum::<f64>()
            };
            assert_gradients(&decoder, &grads, &loss, &format!("{family} p {p}"));
        }
    }
}

#[test]
fn merging_changes_no_log_prob_and_an_adapter_comes_back_from_its_file() {
    for family in FAMILIES {
        for use_rslora in [false, true] {
            let adapted = moved(family, &LoraSpec { use_rslora, ..lora(0.1) });
            let logps = adapted.logps(&batch()).unwrap();
            let merged = adapted.merged().unwrap();
            assert!(merged.adapter().is_none());
            assert!(largest_difference(&merged.logps(&batch()).unwrap(), &logps) < 1e-10, "{family}");

            let dir = tempfile::tempdir().unwrap();
            adapted.save_adapter(dir.path(), "somewhere/base").unwrap();
            let again = decoder(family).load_adapter(dir.path()).unwrap();
            assert_eq!(again.logps(&batch()).unwrap(), logps, "{family}");
            let config = json(&dir.path().join("adapter_config.json"));
            assert_eq!(config["base_model_name_or_path"], "somewhere/base");
            assert_eq!(config["fan_in_fan_out"], family == "gpt2");
            assert!(adapted.save(dir.path()).is_err(), "a checkpoint would leave the adapter out");
        }
    }
}

#[test]
fn steps_through_the_cache_go_through_the_adapter() {
    adapters::assert_cached_step(&moved("llama", &lora(0.2)), 1e-5);
}

#[test]
fn a_save_that_is_cut_short_leaves_no_adapter_and_the_next_one_nothing_of_it() {
    let (adapted, dir) = (moved("llama", &lora(0.0)), tempfile::tempdir().unwrap());
    adapted.save_adapter(dir.path(), "x").unwrap();
    let weights = dir.path().join("adapter_model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    std::fs::create_dir(&weights).unwrap();
    adapted.save_adapter(dir.path(), "x").unwrap_err();
    assert!(!is_adapter(dir.path()), "an old configuration beside new weights is a third adapter");
    std::fs::remove_dir(&weights).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors.part"), "half").unwrap();
    adapted.save_adapter(dir.path(), "x").unwrap();
    assert!(is_adapter(dir.path()) && dir.path().read_dir().unwrap().count() == 2);
}

#[test]
fn flops_count_side_paths_and_no_gradient_of_frozen_weights() {
    let base = decoder("llama");
    let adapted =
        base.with_adapter(&LoraSpec { target_modules: vec!["q_proj".into()], ..lora(0.0) }, 1).unwrap();
    let packed = batch();
    let tokens = packed.ids.len() as f64;
    // q_proj of both layers: A is 3 × 12, B is 12 × 3; two operations a multiply-add.
    let side = 2.0 * tokens * 2.0 * (3.0 * 12.0 + 12.0 * 3.0);
    assert_eq!(adapted.flops(&packed), base.flops(&packed) + side);
    assert_eq!(adapted.base_flops(&packed), base.flops(&packed));
    assert_eq!(base.training_flops(&packed), 3.0 * base.flops(&packed));
    // What is saved is the product for each weight's gradient: as many as the weights' products forward.
    let attention = {
        let visible: usize =
            (1..=4).sum::<usize>() + (5..=9).sum::<usize>() + (5..=7).sum::<usize>() + (1..=9).sum::<usize>();
        2.0 * 4.0 * visible as f64 * 12.0
    };
    let saved = base.flops(&packed) - attention;
    assert_eq!(adapted.training_flops(&packed), 3.0 * (base.flops(&packed) + side) - saved);
    assert_eq!(adapted.num_trained(), 2 * (3 * 12 + 12 * 3));
}

#[test]
fn target_modules_that_are_not_there_are_answered_with_those_that_are() {
    let spec = LoraSpec { target_modules: vec!["q_porj".into()], ..lora(0.0) };
    let text = render(&decoder("llama").with_adapter(&spec, 1).err().unwrap());
    assert!(text.contains("unknown target module `q_porj` (known: down_proj, gate_proj, k_proj"), "{text}");
    assert!(text.contains("did you mean `q_proj`?"), "{text}");
    let twice = decoder("llama").with_adapter(&lora(0.0), 1).unwrap().with_adapter(&lora(0.0), 1);
    assert!(render(&twice.err().unwrap()).contains("has an adapter already"));
}

#[test]
fn adapters_for_another_base_are_refused_with_names_and_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let save = |family: &str| moved(family, &lora(0.0)).save_adapter(dir.path(), "x").unwrap();
    let refused = |base: &Decoder| render(&base.load_adapter(dir.path()).err().unwrap());

    save("gpt2");
    let text = refused(&decoder("llama"));
    assert!(text.contains("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight [3, 12]"), "{text}");
    assert!(text.contains("which has 2 layers of down_proj") && text.contains("hint:"), "{text}");

    save("llama");
    let config = json!({"model_type": "llama", "vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 20, "max_position_embeddings": 64});
    let wider =
        Decoder::random(DecoderConfig::from_json(&config).unwrap(), 1, DType::F64, &Device::Cpu).unwrap();
    let text = refused(&wider);
    assert!(text.contains("q_proj.lora_A.weight has shape [3, 12], the base asks for [3, 16]"), "{text}");

    let path = dir.path().join("adapter_config.json");
    let edit = |key: &str, value: Value| {
        let mut config = json(&path);
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
    };
    for (key, value, off, says) in [
        ("use_dora", json!(true), json!(false), "use_dora is true, which is not supported"),
        ("bias", json!("all"), json!("none"), "bias is \"all\""),
        ("modules_to_save", json!(["lm_head"]), json!(null), "modules_to_save is [\"lm_head\"]"),
        ("peft_type", json!("IA3"), json!("LORA"), "peft_type is IA3"),
        ("init_lora_weights", json!("pissa"), json!("gaussian"), "init_lora_weights is \"pissa\""),
        ("init_lora_weights", json!("lora_ga"), json!("Gaussian"), "init_lora_weights is \"lora_ga\""),
        ("r", json!(8), json!(3), "have rank 3, adapter_config.json says 8"),
    ] {
        edit(key, value);
        let text = refused(&decoder("llama"));
        assert!(text.contains(says), "{text}");
        edit(key, off);
    }
    decoder("llama").load_adapter(dir.path()).unwrap();
    let file = dir.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let text = refused(&decoder("llama"));
    assert!(text.contains("adapter_model.safetensors") && text.contains("cut off"), "{text}");
}

#[test]
fn an_adapter_of_peft_gives_the_log_probs_of_peft() {
    let dir = families();
    let golden = json(&dir.join("families.json"));
    let base = Decoder::load(&dir.join("llama"), DType::F32, &Device::Cpu).unwrap();
    let adapted = base.load_adapter(&dir.join("llama-lora")).unwrap();
    for decoder in [&adapted, &adapted.merged().unwrap()] {
        for s in golden["llama-lora"].as_array().unwrap() {
            let logps = decoder.logps(&Packed::of([&sequence(&ids(&s["ids"]), 1)])).unwrap();
            let error = largest_difference(&logps, &floats(&s["token_logps"]));
            assert!(error < 1e-4, "{error:e}");
        }
    }
    let opened =
        kto_eval::launch::open_dir(&dir.join("llama-lora"), DType::F32, &Device::Cpu, Quantize::None)
            .unwrap();
    assert_eq!(opened.weights_dir.file_name().unwrap(), "llama", "the base stands beside the adapter");
    assert!(opened.decoder.adapter().is_some());
}

const PLAN: &str = r#"name = "adapters"
seeds = [1]
budget = { steps = 6 }
[model]
source = "model"
[data]
source = "data"
max_length = 64
[train]
batch_size = 8
learning_rate = 1e-2
lora = { rank = 4, alpha = 8 }
[suites]
preference = ["heldout"]
[[arm]]
method = "kto"
lora = { dropout = 0.1 }
[[arm]]
name = "dpo-full"
method = "dpo"
lora = { rank = 0 }
[[arm]]
name = "dpo-q"
method = "dpo"
lora = { target_modules = ["q_proj", "v_proj"], use_rslora = true }
"#;

#[test]
fn arms_with_and_without_adapters_run_side_by_side_from_one_base() {
    let place = Place::new();
    place.write("lora.toml", PLAN);
    // Same seed, same bits, dropout included.
    place.runs_the_same_twice("lora.toml");
    let runs = place.read("a/runs.csv");
    let mut reader = csv::Reader::from_reader(runs.as_bytes());
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|c| c == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let number = |row: &csv::StringRecord, name: &str| row[at(name)].parse::<f64>().unwrap();
    let of = |arm: &str| rows.iter().find(|r| &r[at("arm")] == arm).unwrap();
    let full = Decoder::load(&place.path("model"), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(number(of("dpo-full"), "trained_parameters"), full.num_params() as f64);
    // One layer, c = 16, two heads of 8, two key/value heads, f = 32: (k + n)·r over the seven projections.
    let all: usize =
        [(16, 16); 4].into_iter().chain([(16, 32), (16, 32), (32, 16)]).map(|(k, n)| 4 * (k + n)).sum();
    assert_eq!(number(of("kto"), "trained_parameters"), all as f64);
    assert_eq!(number(of("dpo-q"), "trained_parameters"), (2 * 4 * 32) as f64);
    assert!(
        number(of("dpo-q"), "flops") < number(of("dpo-full"), "flops"),
        "frozen weights need no gradient"
    );
    assert_eq!(number(of("dpo-q"), "policy_tokens"), number(of("dpo-full"), "policy_tokens"));
    for row in &rows {
        assert_eq!(&row[at("status")], "done");
    }
    let verified = place.run(&["verify", "lora.toml"]);
    assert!(verified.succeeds().matches("step-0 identity").count() == 3, "{}", verified.out);
}

/// Trains an adapter on the tiny model of `place` into `adapter/`.
fn trained(place: &Place) {
    place
        .line(
            "train --method dpo --model model --data data --steps 8 --batch-size 8 --learning-rate 2e-2 \
             --set train.lora.rank=4 --save-model adapter",
        )
        .succeeds();
}

#[test]
fn a_trained_adapter_is_scored_merged_and_trained_from() {
    let place = Place::new();
    trained(&place);
    assert!(place.path("adapter/adapter_model.safetensors").is_file());
    assert!(place.path("adapter/tokenizer.json").is_file() && !place.path("adapter/config.json").exists());
    place.run(&["merge", "adapter", "--out", "merged", "--max-shard-size", "1"]).succeeds();
    assert!(place.path("merged/config.json").is_file() && place.path("merged/tokenizer.json").is_file());
    let [adapter, merged, base] = ["adapter", "merged", "model"].map(|model| place.logps(model, ""));
    assert!(largest_difference(&adapter, &merged) < 1e-3);
    assert!(largest_difference(&adapter, &base) > 1e-2, "training has moved it");

    // A plan may start from an adapter; a new adapter on it could name no base.
    let full =
        ["train", "--method", "sft", "--model", "adapter", "--data", "data", "--steps", "1", "--out", "full"];
    place.run(&full).succeeds();
    let more = [&full[..], &["--set", "train.lora.rank=2", "--force"]].concat();
    place.run(&more).fails(2, &["adapter is an adapter itself", "kto-eval merge"]);
    place.run(&["merge", "model", "--out", "x"]).fails(2, &["without an adapter"]);
    place
        .run(&["merge", "adapter", "--out", "model"])
        .fails(2, &["model holds a model (config.json)", "--force"]);
    place.run(&["merge", "adapter", "--out", "model", "--force"]).fails(2, &["which is read from"]);
    std::fs::create_dir(place.path("other")).unwrap();
    place.write("other/model-00001-of-00002.safetensors", "another model's");
    place.run(&["merge", "adapter", "--out", "other"]).fails(2, &["other holds a model", "--force"]);
    assert_eq!(place.read("other/model-00001-of-00002.safetensors"), "another model's");
    place.run(&["merge", "adapter", "--out", "other", "--force"]).succeeds();
    place.run(&["merge", "adapter"]).fails(2, &["--out"]);
}

#[test]
fn lora_keys_are_checked_where_they_stand() {
    let place = Place::new();
    place.refuses(
        PLAN,
        &[
            ("rank = 4, alpha = 8", "rank = 4, alpha = 0", "plan.toml:12: `train.lora.alpha` is 0"),
            ("rank = 4, alpha = 8", "alpha = 8", "`arm.kto.lora` has no `rank`"),
            ("dropout = 0.1", "dropout = 1.0", "plan.toml:17: `arm.kto.lora.dropout` is 1"),
            ("dropout = 0.1", "droput = 0.1", "unknown key in [arm.kto.lora] `droput`"),
            ("[\"q_proj\", \"v_proj\"]", "[]", "must name modules"),
            ("[\"q_proj\", \"v_proj\"]", "[\"c_attn\"]", "unknown target module `c_attn`"),
        ],
    );
}

/// `pip install torch --index-url https://download.pytorch.org/whl/cpu && pip install peft transformers`, then
/// `KTO_EVAL_PYTHON=…/python cargo test --test adapter -- --ignored`.
#[test]
#[ignore = "needs Python with torch, transformers and peft (see the comment above it)"]
fn real_peft_opens_our_adapters_and_gives_the_same_log_probs() {
    let families = families();
    for family in ["llama", "gpt_neox", "gpt2", "qwen3", "gemma2", "olmo2"] {
        let base_dir = families.join(family);
        let base = Decoder::load(&base_dir, DType::F32, &Device::Cpu).unwrap();
        let spec = LoraSpec { use_rslora: family == "qwen3", ..lora(0.1) };
        let adapted = adapters::moved(&base, &spec, 0.05);
        let dir = tempfile::tempdir().unwrap();
        adapted.save_adapter(dir.path(), &base_dir.display().to_string()).unwrap();
        let row: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 200).collect();
        let wanted = transformers_logps(dir.path(), &row);
        let mine = adapted.logps(&Packed::of([&sequence(&row, 1)])).unwrap();
        let error = largest_difference(&mine, &wanted);
        println!("{family}: log-probs within {error:.1e}");
        assert!(error < 1e-4, "{family}: {error:e}");
    }
}
