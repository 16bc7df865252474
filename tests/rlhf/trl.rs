//! Whole steps of TRL's RLOO and GRPO trainers on a tiny model: the same samples give the same log-probs, advantages,
//! losses and gradients here. `trl.json` holds what `trl_trainers.py` says of them.

use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device};
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed};
use kto_eval::objective::online::{Part, Rollout, Share, Surrogate, surrogate};
use kto_eval::plan::{Method, OnlineSpec};
use serde::Deserialize;
use serde_json::json;

/// What a trainer did; n samples, those of a prompt side by side.
#[derive(Deserialize)]
struct Trained {
    beta: f64,
    clip: f64,
    /// Of each prompt.
    samples: usize,
    /// (n,)
    prompts: Vec<Vec<u32>>,
    completions: Vec<Vec<u32>>,
    rewards: Vec<f64>,
    advantages: Vec<f64>,
    /// (n, T) log-probs under the reference.
    reference: Vec<Vec<f64>>,
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    /// (n, T) log-probs under the policy before the update.
    now: Vec<Vec<f64>>,
    loss: f64,
    gradient_norm: f64,
}

#[derive(Deserialize)]
struct Answers {
    rloo: Trained,
    grpo: Trained,
}

/// The text of `trl.json`.
fn golden() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rlhf/trl.json");
    std::fs::read_to_string(path).unwrap()
}

fn decoder(seed: u64) -> Decoder {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 30, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
        "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": false, "rms_norm_eps": 1e-6,
        "eos_token_id": 0, "pad_token_id": 1,
    });
    Decoder::random(DecoderConfig::from_json(&config).unwrap(), seed, DType::F32, &Device::Cpu).unwrap()
}

fn policy() -> Decoder {
    decoder(11)
}

fn reference() -> Decoder {
    decoder(12)
}

/// Largest difference of two lists of numbers.
fn furthest<'a>(ours: &[f64], theirs: impl IntoIterator<Item = &'a f64>) -> f64 {
    let theirs: Vec<f64> = theirs.into_iter().copied().collect();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The loss of a whole step at these log-probs.
fn loss(surrogate: &dyn Surrogate, rollout: &Rollout, now: &[f64], beta: f64) -> Share {
    let advantages = surrogate.advantages(rollout, beta);
    let part = Part {
        lengths: &rollout.lengths,
        logps: now,
        values: &[],
        old: &rollout.old,
        reference: &rollout.reference,
        old_values: &[],
        advantages: &advantages.advantages,
        returns: &[],
        step_samples: rollout.lengths.len(),
        step_tokens: rollout.tokens(),
    };
    surrogate.share(&part, beta)
}

fn agrees(name: &str, theirs: &Trained, method: Method) {
    let sequences: Vec<Sequence> = (theirs.prompts.iter().zip(&theirs.completions))
        .map(|(p, c)| Sequence { ids: p.iter().chain(c).copied().collect(), prompt_len: p.len() })
        .collect();
    let (policy, batch) = (policy(), Packed::of(&sequences));
    let (old, tape) = policy.forward(&batch).unwrap();
    let rollout = Rollout {
        samples: theirs.samples,
        lengths: theirs.completions.iter().map(Vec::len).collect(),
        rewards: theirs.rewards.clone(),
        reference: reference().logps(&batch).unwrap(),
        old,
        values: vec![],
    };
    let [first, second] = &theirs.updates[..] else { panic!("two updates") };
    let flat = |rows: &Vec<Vec<f64>>| rows.concat();
    let off =
        furthest(&rollout.old, &flat(&first.now)).max(furthest(&rollout.reference, &flat(&theirs.reference)));
    assert!(off < 2e-5, "{name}: log-probs within {off:e}");
    let surrogate = surrogate(&method).unwrap();
    let advantages = surrogate.advantages(&rollout, theirs.beta).advantages;
    let starts = rollout.lengths.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n)));
    let by_sample: Vec<f64> = starts.map(|at| advantages[at]).collect();
    let off = furthest(&by_sample, &theirs.advantages);
    assert!(off < 1e-5, "{name}: advantages within {off:e}");
    let share = loss(surrogate.as_ref(), &rollout, &rollout.old, theirs.beta);
    let off = (share.loss - first.loss).abs();
    assert!(off < 1e-5, "{name}: loss {} against {}", share.loss, first.loss);
    let mut gradients = Gradients::zeros(&policy).unwrap();
    policy.backward(tape, &share.dlogps, &mut gradients).unwrap();
    let norm = gradients.global_norm().unwrap();
    let norm_off = (norm / first.gradient_norm - 1.0).abs();
    assert!(norm_off < 1e-5, "{name}: gradient norm {norm} against {}", first.gradient_norm);
    // The second pass, at TRL's own log-probs after its first update.
    let again = loss(surrogate.as_ref(), &rollout, &flat(&second.now), theirs.beta);
    assert!(again.clipped > 0 && again.clipped < again.ratios, "{} of {}", again.clipped, again.ratios);
    let second_off = (again.loss - second.loss).abs();
    assert!(second_off < 1e-5, "{name}: second loss {} against {}", again.loss, second.loss);
    println!("{name}: losses within {off:.1e} and {second_off:.1e}, gradient norm within {norm_off:.1e}");
}

fn all_agree(answers: &Answers) {
    let spec = |t: &Trained| OnlineSpec { samples: t.samples, clip: t.clip, ..OnlineSpec::default() };
    agrees("rloo", &answers.rloo, Method::Rloo(spec(&answers.rloo)));
    agrees("grpo", &answers.grpo, Method::Grpo(spec(&answers.grpo)));
}

#[test]
fn steps_equal_those_that_trl_took() {
    all_agree(&serde_json::from_str(&golden()).unwrap());
}

/// `pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 datasets accelerate` into a venv; its python in
/// KTO_EVAL_PYTHON. Then: cargo test --release --test rlhf -- --ignored trl_
#[test]
#[ignore = "needs Python with TRL: pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 datasets accelerate"]
fn trl_trains_on_the_same_models_and_the_golden_is_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    policy().save(&dir.path().join("policy")).unwrap();
    reference().save(&dir.path().join("reference")).unwrap();
    let python = std::env::var("KTO_EVAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rlhf/trl_trainers.py");
    let out = Command::new(python).arg(script).arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(dir.path().join("answers.json")).unwrap();
    if let Ok(path) = std::env::var("KTO_EVAL_WRITE_GOLDEN") {
        std::fs::write(path, &text).unwrap();
    }
    all_agree(&serde_json::from_str(&text).unwrap());
    // Sampling may differ between builds of torch; the same build gives the same samples.
    let golden: Answers = serde_json::from_str(&golden()).unwrap();
    let now: Answers = serde_json::from_str(&text).unwrap();
    println!("the same samples as in trl.json: {}", golden.rloo.completions == now.rloo.completions);
}
