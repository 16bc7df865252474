//! The scalar head against finite differences, and whole reward models against transformers.

use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, RewardModel};
use rand::RngExt;
use serde_json::{Value, json};

const FAMILIES: [&str; 9] =
    ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt2", "gemma2", "gemma3_text", "olmo2"];

fn tiny(family: &str) -> DecoderConfig {
    let mut config = json!({
        "model_type": family, "vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 20,
        "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": false,
    });
    let more = match family {
        "gpt_neox" => json!({"rotary_pct": 0.5}),
        "gpt2" => json!({"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64}),
        _ => json!({}),
    };
    let (Value::Object(all), Value::Object(more)) = (&mut config, more) else { unreachable!() };
    all.extend(more);
    DecoderConfig::from_json(&config).unwrap()
}

/// Sequences of token ids below 29; some end in padding (0), one is nothing else.
fn sequences() -> Vec<Sequence> {
    let mut rng = seed::rng(17, "test/reward-sequences");
    let mut draw = |n: usize| (0..n).map(|_| rng.random_range(1..29)).collect::<Vec<u32>>();
    let mut all: Vec<Vec<u32>> = [3, 9, 17, 1, 30].into_iter().map(&mut draw).collect();
    all.push([draw(5), vec![0, 0, 0]].concat());
    all.push([vec![0, 0], draw(4), vec![0]].concat());
    all.push(vec![0, 0]);
    all.into_iter().map(|ids| Sequence { ids: ids.into(), prompt_len: 1 }).collect()
}

#[test]
fn the_scalar_heads_gradient_is_a_finite_difference_with_and_without_log_probs() {
    let start = Decoder::random(tiny("llama"), 7, DType::F64, &Device::Cpu).unwrap();
    for logps in [false, true] {
        // A value head keeps the vocabulary projection; a score head has none.
        let mut model = match logps {
            true => start.with_critic(3).unwrap(),
            false => RewardModel::from_start(&start, 0, 3).unwrap().into_decoder(),
        };
        let batch = match logps {
            true => Packed::of(&sequences()[..3]),
            false => {
                let mut batch = Packed::default();
                sequences().iter().for_each(|s| batch.push_scored(&[s], Some(0)));
                batch
            }
        };
        let mut rng = seed::rng(5, "test/weights");
        let mut weights = |on: bool| -> Vec<f64> {
            if !on { vec![] } else { batch.reads.iter().map(|_| rng.random_range(-1.0..1.0)).collect() }
        };
        let (dlogps, dscalars) = (weights(logps), weights(true));
        let objective = |model: &Decoder| {
            let (l, s, _) = model.forward_scalars(&batch, logps).unwrap();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            dot(&l, &dlogps) + dot(&s, &dscalars)
        };
        let mut gradients = Gradients::zeros(&model).unwrap();
        let (_, scalars, tape) = model.forward_scalars(&batch, logps).unwrap();
        assert_eq!(scalars.len(), batch.reads.len());
        model.backward_scalars(tape, &dlogps, &dscalars, &mut gradients).unwrap();
        let step = 1e-5;
        for index in 0..model.params().len() {
            let original = model.params()[index].tensor.clone();
            let direction: Vec<f64> =
                (0..original.elem_count()).map(|_| rng.random_range(-1.0..1.0)).collect();
            let direction = Tensor::from_vec(direction, original.shape(), &Device::Cpu).unwrap();
            let mut at = |h: f64| {
                model.params_mut()[index].tensor = (&original + (&direction * h).unwrap()).unwrap();
                objective(&model)
            };
            let central = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            let along = (&gradients.tensors()[index] * &direction).unwrap().sum_all().unwrap();
            let along: f64 = along.to_scalar().unwrap();
            let off = (along - central).abs() / central.abs().max(1e-3);
            assert!(off < 1e-5, "parameter {index}: {along} against {central}");
        }
    }
}

const SCRIPT: &str = r#"
import json, sys, torch
from transformers import AutoConfig, AutoModelForSequenceClassification
job = json.load(open(sys.argv[1]))
torch.manual_seed(0)
def scores(model):
    out, pad = [], model.config.pad_token_id
    width = max(len(s) for s in job["sequences"])
    ids = torch.tensor([s + [pad] * (width - len(s)) for s in job["sequences"]])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in job["sequences"]])
    with torch.no_grad():
        return model(ids, attention_mask=mask).logits[:, 0].tolist()
answers = {}
for family in job["families"]:
    folder = job["folder"] + "/" + family
    model = AutoModelForSequenceClassification.from_pretrained(folder + "/ours", dtype=torch.float32).eval()
    ours = scores(model)
    config = AutoConfig.from_pretrained(folder + "/ours")
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.3)
    theirs.save_pretrained(folder + "/theirs")
    answers[family] = {"class": type(model).__name__, "ours": ours, "theirs": scores(theirs)}
json.dump(answers, open(job["folder"] + "/answers.json", "w"))
"#;

/// `pip install torch transformers` into a venv; its python in KTO_EVAL_PYTHON (default python3).
/// Then: cargo test --test rlhf -- --ignored transformers
#[test]
#[ignore = "needs Python with torch and transformers: pip install torch transformers"]
fn scores_equal_those_of_transformers_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let start = Decoder::random(tiny(family), 7, DType::F32, &Device::Cpu).unwrap();
        let model = RewardModel::from_start(&start, 0, 3).unwrap();
        model.decoder().save(&dir.path().join(family).join("ours")).unwrap();
    }
    let ids: Vec<Vec<u32>> = sequences().iter().map(|s| s.ids.to_vec()).collect();
    let job = json!({"families": FAMILIES, "folder": dir.path(), "sequences": ids});
    let answers = python(dir.path(), SCRIPT, &job);
    for family in FAMILIES {
        for side in ["ours", "theirs"] {
            let model =
                RewardModel::load(&dir.path().join(family).join(side), DType::F32, &Device::Cpu).unwrap();
            let got = model.scores(&sequences().iter().collect::<Vec<_>>()).unwrap();
            let want = &answers[family][side];
            let mut furthest = 0.0f64;
            for (i, score) in got.iter().enumerate() {
                let want = want[i].as_f64().unwrap();
                furthest = furthest.max((score - want).abs() / want.abs().max(1.0));
            }
            println!("{family} {side} ({}): within {furthest:.1e}", answers[family]["class"]);
            assert!(furthest < 1e-5, "{family} {side}: {got:?} against {want}");
        }
    }
}

pub fn python(dir: &Path, text: &str, job: &Value) -> Value {
    let python = std::env::var("KTO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let (script, input) = (dir.join("script.py"), dir.join("job.json"));
    std::fs::write(&script, text).unwrap();
    std::fs::write(&input, job.to_string()).unwrap();
    let out = Command::new(python).arg(script).arg(input).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(&std::fs::read_to_string(dir.join("answers.json")).unwrap()).unwrap()
}
