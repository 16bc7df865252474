//! What the tests of the engine share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod adapters;

use candle_core::{DType, Device, Tensor};
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients};
use rand_chacha::rand_core::Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `../shared` beside the repository, or `KTO_EVAL_SHARED`; says so where it is absent.
pub fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let dir = std::env::var_os("KTO_EVAL_SHARED").map_or(beside, PathBuf::from);
    if dir.join("golden").is_dir() {
        return Some(dir);
    }
    println!("skipped: the golden numbers need ../shared");
    None
}

/// Tiny models of every family with what transformers and PEFT say of them.
pub fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families")
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list of numbers").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// The log-probs that transformers gives a row under the model in `dir`, by `KTO_EVAL_PYTHON` or `python3`.
pub fn transformers_logps(dir: &Path, row: &[u32]) -> Vec<f64> {
    let python = std::env::var("KTO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/transformers_logps.py");
    let asked = serde_json::to_string(row).unwrap();
    let done = Command::new(&python).args([script.as_path(), dir]).arg(asked).output();
    let done = done.unwrap_or_else(|e| panic!("{python}: {e}"));
    assert!(done.status.success(), "{}: {}", dir.display(), String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

pub fn sequence(ids: &[u32], prompt_len: usize) -> Sequence {
    Sequence { ids: ids.into(), prompt_len }
}

/// Numbers between -1 and 1.
pub fn numbers(name: &str, count: usize) -> Vec<f64> {
    let mut rng = seed::rng(11, name);
    (0..count).map(|_| rng.next_u32() as f64 / 2f64.powi(31) - 1.0).collect()
}

pub fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The gradient of each trained tensor is that of central finite differences of `loss`, along two random directions and
/// along the coordinate where it is largest.
pub fn assert_gradients(decoder: &Decoder, grads: &Gradients, loss: &dyn Fn(&Decoder) -> f64, what: &str) {
    for (index, param) in decoder.trained().iter().enumerate() {
        let (grad, at) = (flat(&grads.tensors()[index]), flat(&param.tensor));
        let name = &param.pieces[0].name;
        assert!(grad.iter().all(|g| g.is_finite()), "{what} {name}");
        assert!(grad.iter().any(|g| g.abs() > 1e-8), "{what} {name} has no gradient");
        let largest = (0..at.len()).max_by(|&a, &b| grad[a].abs().total_cmp(&grad[b].abs())).unwrap();
        let mut one = vec![0.0; at.len()];
        one[largest] = 1.0;
        let random = |probe: usize| numbers(&format!("{name} {probe}"), at.len());
        for direction in [one, random(1), random(2)] {
            let moved = |step: f64| {
                let mut moved = decoder.duplicate().unwrap();
                let values: Vec<f64> = at.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                moved.trained_mut()[index].tensor =
                    Tensor::from_vec(values, param.tensor.shape(), &Device::Cpu).unwrap();
                loss(&moved)
            };
            let step = 1e-5;
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            let exact: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let error = (numeric - exact).abs() / (1.0 + exact.abs());
            assert!(error < 2e-6, "{what} {name}: {exact} against {numeric}");
        }
    }
}

pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// A tiny model of each family, with what tells the family apart switched on.
pub fn tiny(family: &str) -> DecoderConfig {
    let mut config = json!({
        "model_type": family, "vocab_size": 29, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 20,
        "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": false,
    });
    let more = match family {
        "llama" => json!({"attention_bias": true, "mlp_bias": true, "rope_scaling": {"rope_type": "llama3",
            "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
        "mistral" => json!({"sliding_window": 4}),
        "qwen2" => json!({"tie_word_embeddings": true}),
        "gpt_neox" => json!({"rotary_pct": 0.5, "hidden_size": 16, "num_attention_heads": 4}),
        "gpt2" => json!({"n_embd": 12, "n_head": 3, "n_layer": 2, "n_positions": 64}),
        "gemma2" => {
            json!({"query_pre_attn_scalar": 4, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0,
            "sliding_window": 4, "tie_word_embeddings": true})
        }
        "gemma3_text" => json!({"query_pre_attn_scalar": 4, "sliding_window": 4, "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "tie_word_embeddings": true}),
        _ => json!({}),
    };
    let (Value::Object(all), Value::Object(more)) = (&mut config, more) else { unreachable!() };
    all.extend(more);
    DecoderConfig::from_json(&config).unwrap()
}

pub const FAMILIES: [&str; 9] =
    ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt2", "gemma2", "gemma3_text", "olmo2"];

/// A prompt and a completion; those of one seed have the same prompt.
pub fn random_sequence(seed: u64, prompt: usize, completion: usize, vocab: u32) -> Sequence {
    let draw = |name: String, n: usize| {
        let mut rng = seed::rng(seed, &name);
        (0..n).map(move |_| rng.next_u32() % vocab).collect::<Vec<_>>()
    };
    let whole =
        [draw("prompt".into(), prompt), draw(format!("completion {completion}"), completion)].concat();
    sequence(&whole, prompt)
}
