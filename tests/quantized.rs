//! Adapters on a frozen quantised base (QLoRA): numbers, gradients, memory, plans, and what is refused.

mod cli;
mod engine;

use candle_core::{DType, Device, Tensor};
use cli::Place;
use engine::{largest_difference, sequence};
use kto_eval::base::seed;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed};
use kto_eval::plan::{LoraSpec, Quantize};
use rand_chacha::rand_core::Rng;
use serde_json::json;

/// One of each way that a projection lies in a checkpoint; widths that every type's blocks divide, or blocks of 32 only.
fn decoder(family: &str, width: usize, dtype: DType) -> Decoder {
    let config = json!({
        "model_type": family, "vocab_size": 29, "hidden_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": width / 4, "intermediate_size": 2 * width,
        "max_position_embeddings": 64, "initializer_range": 0.15, "tie_word_embeddings": false,
        "n_embd": width, "n_head": 4, "n_layer": 2, "n_positions": 64, "query_pre_attn_scalar": 16,
    });
    Decoder::random(DecoderConfig::from_json(&config).unwrap(), 7, dtype, &Device::Cpu).unwrap()
}

fn lora() -> LoraSpec {
    LoraSpec { rank: 3, alpha: 5.0, ..LoraSpec::default() }
}

fn numbers(name: &str, count: usize) -> Vec<f64> {
    let mut rng = seed::rng(17, name);
    (0..count).map(|_| rng.next_u32() as f64 / 2f64.powi(31) - 1.0).collect()
}

/// With every B away from 0.
fn moved(base: &Decoder) -> Decoder {
    let mut decoder = base.with_adapter(&lora(), 3).unwrap();
    for param in decoder.trained_mut() {
        let noise = numbers(&param.pieces[0].name, param.tensor.elem_count());
        let noise = Tensor::from_vec(noise, param.tensor.shape(), &Device::Cpu).unwrap();
        param.tensor =
            (&param.tensor + (noise * 0.2).unwrap().to_dtype(param.tensor.dtype()).unwrap()).unwrap();
    }
    decoder
}

fn batch() -> Packed {
    let row = |name: &str, n: usize| {
        let mut rng = seed::rng(19, name);
        (0..n).map(|_| rng.next_u32() % 29).collect::<Vec<u32>>()
    };
    let prompt = row("prompt", 4);
    let whole = |name: &str, n: usize| sequence(&[prompt.clone(), row(name, n)].concat(), 4);
    let mut packed = Packed::default();
    packed.push_group(&[&whole("a", 5), &whole("b", 3)]);
    packed
}

#[test]
fn a_quantised_base_is_the_model_of_its_rounded_weights() {
    for family in ["llama", "gpt_neox", "gpt2", "gemma2"] {
        for quantize in Quantize::ALL.into_iter().filter(|q| q.is_on()) {
            let base = decoder(family, 256, DType::F64);
            let packed = base.quantized(quantize).unwrap();
            assert!(packed.is_quantized() && packed.num_params() == base.num_params());
            let mut rounded = base.duplicate().unwrap();
            for (param, packed) in rounded.params_mut().iter_mut().zip(packed.params()) {
                param.tensor = packed.numbers().unwrap();
            }
            let (exact, got) = (rounded.logps(&batch()).unwrap(), packed.logps(&batch()).unwrap());
            assert!(largest_difference(&exact, &got) < 1e-10, "{family} {quantize:?}");
            let off = largest_difference(&base.logps(&batch()).unwrap(), &got);
            assert!(off > 1e-6, "{family} {quantize:?}: nothing was rounded");
            assert_ne!(base.weights_hash().unwrap(), packed.weights_hash().unwrap());
            // An adapter on it that is merged is the same model as numbers.
            let adapted = moved(&packed);
            let merged = adapted.merged().unwrap();
            assert!(!merged.is_quantized());
            let off = largest_difference(&adapted.logps(&batch()).unwrap(), &merged.logps(&batch()).unwrap());
            assert!(off < 1e-10, "{family} {quantize:?}: merged differs by {off:e}");
        }
    }
}

#[test]
fn the_reference_is_the_same_quantised_base_with_the_adapter_off() {
    let base = decoder("llama", 64, DType::F64).quantized(Quantize::Q8_0).unwrap();
    let fresh = base.with_adapter(&lora(), 1).unwrap();
    assert_eq!(fresh.logps(&batch()).unwrap(), base.logps(&batch()).unwrap());
    assert_eq!(fresh.weights_hash().unwrap(), base.weights_hash().unwrap(), "B is 0");
    let trained = moved(&base);
    assert_ne!(trained.weights_hash().unwrap(), base.weights_hash().unwrap());
    assert_eq!(trained.duplicate().unwrap().logps(&batch()).unwrap(), trained.logps(&batch()).unwrap());
}

#[test]
fn gradients_on_a_quantised_base_are_finite_differences() {
    let packed = batch();
    let dlogps = numbers("dlogps", packed.reads.len());
    for family in ["llama", "gpt_neox", "gpt2", "gemma2"] {
        for checkpointing in [false, true] {
            let base = decoder(family, 64, DType::F64).quantized(Quantize::Q4_0).unwrap();
            let mut decoder = moved(&base);
            decoder.set_checkpointing(checkpointing);
            let (_, tape) = decoder.forward(&packed).unwrap();
            let mut grads = Gradients::zeros(&decoder).unwrap();
            decoder.backward(tape, &dlogps, &mut grads).unwrap();
            for index in 0..decoder.trained().len() {
                let param = &decoder.trained()[index];
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let (grad, at) = (flat(&grads.tensors()[index]), flat(&param.tensor));
                let direction = numbers(&format!("direction {index}"), at.len());
                let loss = |step: f64| {
                    let mut copy = decoder.duplicate().unwrap();
                    let values: Vec<f64> = at.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                    copy.trained_mut()[index].tensor =
                        Tensor::from_vec(values, param.tensor.shape(), &Device::Cpu).unwrap();
                    let logps = copy.logps(&packed).unwrap();
                    logps.iter().zip(&dlogps).map(|(l, w)| l * w).sum::<f64>()
                };
                let numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let exact: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
                let error = (numeric - exact).abs() / (1.0 + exact.abs());
                assert!(error < 2e-6, "{family} {}: {exact} against {numeric}", param.pieces[0].name);
            }
        }
    }
}

#[test]
fn blocks_take_the_memory_that_their_bits_say() {
    let base = decoder("llama", 256, DType::F32);
    let projections: usize =
        base.params().iter().filter(|p| p.pieces[0].name.contains("proj")).map(|p| p.bytes()).sum();
    let rest = base.weight_bytes() - projections;
    for (quantize, bits) in [
        (Quantize::Q8_0, 8.5),
        (Quantize::Q6k, 6.5625),
        (Quantize::Q5k, 5.5),
        (Quantize::Q4k, 4.5),
        (Quantize::Q4_0, 4.5),
    ] {
        let packed = base.quantized(quantize).unwrap();
        assert_eq!(packed.weight_bytes() - rest, (projections as f64 * bits / 32.0) as usize, "{quantize:?}");
    }
}

#[test]
fn what_is_frozen_is_neither_trained_nor_saved() {
    let base = decoder("llama", 64, DType::F32).quantized(Quantize::Q8_0).unwrap();
    assert!(Gradients::zeros(&base).err().unwrap().to_string().contains("is frozen"));
    let dir = tempfile::tempdir().unwrap();
    assert!(base.save(dir.path()).unwrap_err().to_string().contains("quantised base is not saved"));
    let twice = base.with_adapter(&lora(), 1).unwrap().quantized(Quantize::Q8_0);
    assert!(twice.err().unwrap().to_string().contains("before it gets an adapter"));
}

#[test]
fn a_step_of_decoding_goes_through_the_blocks() {
    let decoder = moved(&decoder("llama", 64, DType::F32).quantized(Quantize::Q8_0).unwrap());
    let row = [3u32, 7, 1, 20, 5, 9];
    let mut cache = decoder.new_cache(1, 8).unwrap();
    decoder.step(&mut cache, &[(0, &row[..4])]).unwrap();
    let logits = decoder.step(&mut cache, &[(0, &row[4..5])]).unwrap();
    let logits: Vec<f64> =
        logits.get(0).unwrap().to_vec1::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect();
    let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    let wanted = decoder.logps(&Packed::of([&sequence(&row, 5)])).unwrap()[0];
    assert!((logits[row[5] as usize] - total - wanted).abs() < 1e-4);
}

const PLAN: &str = r#"name = "qlora"
seeds = [1]
budget = { steps = 6 }
[model]
source = "model"
quantize = "q8_0"
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
[[arm]]
method = "dpo"
sft_first = 0.3
"#;

/// `Place::new` with a model whose rows fill blocks of 32.
fn place() -> Place {
    let place = Place::new();
    let config = kto_eval::model::Size {
        vocab: Decoder::load(&place.path("model"), DType::F32, &Device::Cpu).unwrap().config().vocab,
        hidden: 32,
        layers: 2,
        heads: 2,
        kv_heads: 2,
        intermediate: 64,
        context: 96,
    };
    let model = Decoder::random(DecoderConfig::llama(config).unwrap(), 1, DType::F32, &Device::Cpu).unwrap();
    model.save(&place.path("model")).unwrap();
    place
}

#[test]
fn a_plan_on_a_quantised_base_runs_and_gives_the_same_bits_twice() {
    let place = place();
    place.write("plan.toml", PLAN);
    let shown = place.run(&["plan", "show", "plan.toml"]).succeeds().to_owned();
    assert!(shown.contains("quantize = \"q8_0\""), "{shown}");
    place.write("again.toml", &shown);
    assert_eq!(place.run(&["plan", "show", "again.toml"]).succeeds(), shown);
    let verified = place.run(&["verify", "plan.toml"]);
    assert_eq!(verified.succeeds().matches("step-0 identity").count(), 2, "{}", verified.out);
    place.run(&["compare", "plan.toml", "--out", "a"]).succeeds();
    place.run(&["compare", "plan.toml", "--out", "b"]).succeeds();
    place.assert_same_rows("a", "b");
}

#[test]
fn an_adapter_trained_on_blocks_is_saved_scored_and_merged_as_any_other() {
    let place = place();
    place
        .line(
            "train --method dpo --model model --data data --steps 8 --batch-size 8 --learning-rate 2e-2 \
             --set train.lora.rank=4 --set model.quantize=q4_0 --save-model adapter",
        )
        .succeeds();
    assert!(
        place.path("adapter/adapter_model.safetensors").is_file()
            && !place.path("adapter/config.json").exists()
    );
    let logps = |model: &str, form: &str| place.logps(model, &format!("--quantize {form}"));
    let (plain, packed) = (logps("adapter", "none"), logps("adapter", "q4_0"));
    let off = largest_difference(&plain, &packed);
    assert!(off > 1e-4 && off < 3.0, "the base is rounded: {off}");
    assert!(largest_difference(&packed, &logps("model", "q4_0")) > 1e-2, "training has moved it");
    place.run(&["merge", "adapter", "--out", "merged"]).succeeds();
    assert!(largest_difference(&logps("merged", "none"), &plain) < 1e-3);
    // On suites too.
    place
        .line(
            "score --model adapter --reference model --suite heldout --data data --max-length 64 --quantize \
             q4_0 --out scores",
        )
        .succeeds();
    place
        .line("bench --model model --data data --set model.quantize=q8_0 --set train.lora.rank=4 --seconds 1")
        .succeeds();
    place
        .line(
            "train --method sft --model adapter --data data --steps 1 --set train.lora.rank=4 --set \
             model.quantize=q8_0 --out x",
        )
        .fails(2, &["adapter is an adapter", "asks for a frozen base", "kto-eval merge"]);
}

#[test]
fn combinations_that_make_no_sense_are_refused_where_they_stand() {
    let place = place();
    let trainer = "method = \"kto\"\n[arm.trainer]\ncommand = [\"true\", \"{out}\"]";
    place.refuses(
        PLAN,
        &[
            ("quantize = \"q8_0\"", "quantize = \"q9\"", "model.quantize"),
            (
                "lora = { rank = 4, alpha = 8 }",
                "",
                "`arm.kto` trains all weights, and model.quantize = \"q8_0\" freezes",
            ),
            ("method = \"kto\"", "method = \"kto\"\nlora = { rank = 0 }", "`arm.kto` trains all weights"),
            ("method = \"kto\"", "method = \"rloo\"", "`arm.rloo` cannot be trained on a quantised base yet"),
            ("method = \"kto\"", "method = \"reward\"", "a reward model trains all weights"),
            ("method = \"kto\"", "method = \"ppo-offline\"", "cannot be trained on a quantised base yet"),
            ("method = \"kto\"", trainer, "is an external trainer, which reads the checkpoint as it is"),
            (
                "quantize = \"q8_0\"",
                "quantize = \"q4_k\"",
                "self_attn.q_proj.weight [96, 32]: Q4K packs 256 numbers",
            ),
        ],
    );
}
