//! Adapters on a frozen quantised base (QLoRA): numbers, gradients, memory, plans, and what is refused.

mod cli;
mod engine;

use candle_core::{DType, Device};
use cli::Place;
use engine::adapters::{self, FAMILIES, batch};
use engine::{assert_gradients, largest_difference, numbers};
use kto_eval::model::{Decoder, DecoderConfig, Gradients};
use kto_eval::plan::{LoraSpec, Quantize};

/// Of a width that every type's blocks divide, or blocks of 32 only.
fn decoder(family: &str, width: usize, dtype: DType) -> Decoder {
    adapters::decoder(family, width, 4, 0.15, dtype)
}

fn lora() -> LoraSpec {
    LoraSpec { rank: 3, alpha: 5.0, ..LoraSpec::default() }
}

/// With every B away from 0.
fn moved(base: &Decoder) -> Decoder {
    adapters::moved(base, &lora(), 0.2)
}

#[test]
fn a_quantised_base_is_the_model_of_its_rounded_weights() {
    for family in FAMILIES {
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
    for family in FAMILIES {
        for checkpointing in [false, true] {
            let base = decoder(family, 64, DType::F64).quantized(Quantize::Q4_0).unwrap();
            let mut decoder = moved(&base);
            decoder.set_checkpointing(checkpointing);
            let (_, tape) = decoder.forward(&packed).unwrap();
            let mut grads = Gradients::zeros(&decoder).unwrap();
            decoder.backward(tape, &dlogps, &mut grads).unwrap();
            let loss =
                |d: &Decoder| d.logps(&packed).unwrap().iter().zip(&dlogps).map(|(l, w)| l * w).sum::<f64>();
            assert_gradients(&decoder, &grads, &loss, family);
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
    let quantized = decoder("llama", 64, DType::F32).quantized(Quantize::Q8_0).unwrap();
    adapters::assert_cached_step(&moved(&quantized), 1e-4);
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
    let verified = place.run(&["verify", "plan.toml"]);
    assert_eq!(verified.succeeds().matches("step-0 identity").count(), 2, "{}", verified.out);
    let shown = place.runs_the_same_twice("plan.toml");
    assert!(shown.contains("quantize = \"q8_0\""), "{shown}");
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
