//! Thirty steps of TRL's SFT and KTO trainers, reproduced step by step: loss, gradient norm, KL, rewards,
//! update of every tensor, and rewards of held-out pairs after training.

mod golden;

use candle_core::{DType, Device};
use golden::{close, golden, numbers, shared};
use kto_eval::data::{PreferencePair, Sequence, TokenizedExample, TokenizedPair, Tokenizer, tokenize_pairs};
use kto_eval::model::{Decoder, Packed};
use kto_eval::plan::{Budget, KtoSpec, Lambda, LoraSpec, Method, Order, Schedule, TrainSpec, Z0};
use kto_eval::train::{Ended, Hooks, Job, Outcome, Reference, ReferenceCache, StepMetrics, TrainData, train};
use serde_json::Value;
use std::sync::atomic::AtomicBool;

const STEPS: usize = 30;
const BETA: f64 = 0.1;

fn pairs(file: &str) -> Vec<TokenizedPair> {
    let tokenizer = Tokenizer::load(&shared().join("models/golden-policy")).unwrap();
    let text = std::fs::read_to_string(shared().join("golden/trl").join(file)).unwrap();
    let rows: Vec<PreferencePair> = text
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let row: Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| row[name].as_str().unwrap().to_owned();
            PreferencePair {
                id: format!("{file}:{}", i + 1),
                prompt: field("prompt"),
                chosen: field("chosen"),
                rejected: field("rejected"),
                subset: String::new(),
            }
        })
        .collect();
    tokenize_pairs(&rows, &tokenizer, 512).unwrap().0
}

fn load(name: &str) -> Decoder {
    Decoder::load(&shared().join("models").join(name), DType::F32, &Device::Cpu).unwrap()
}

fn spec(hyper: &Value) -> TrainSpec {
    let number = |name: &str| hyper[name].as_f64().unwrap();
    TrainSpec {
        batch_size: number("batch_size") as usize,
        micro_tokens: 700,
        gradient_checkpointing: false,
        order: Order::Sequential,
        learning_rate: number("lr"),
        schedule: Schedule::Constant,
        warmup: 0.0,
        adam_beta1: numbers(&hyper["betas"])[0],
        adam_beta2: numbers(&hyper["betas"])[1],
        adam_epsilon: number("eps"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        lora: LoraSpec::default(),
    }
}

fn kto() -> Method {
    let lambda = Lambda::Fixed { desirable: 1.0, undesirable: 1.0 };
    Method::Kto(KtoSpec { beta: BETA, lambda, z0: Z0::Previous })
}

/// Trains as the file says and holds every figure in it.
fn reproduce(file: &Value, method: &Method, data: TrainData<'_>) {
    let (mut policy, start) = (load("golden-policy"), load("golden-policy"));
    let cache = ReferenceCache::open(&start.weights_hash().unwrap(), None);
    let reference = Reference::new(&start, &cache);
    let spec = spec(&file["hyper"]);
    let job = Job {
        method,
        spec: &spec,
        budget: Budget::Steps(STEPS as u64),
        seed: 0,
        max_length: 512,
        data,
        reference: Some(reference),
    };
    let mut steps: Vec<StepMetrics> = Vec::new();
    let outcome = train(
        &mut policy,
        &job,
        &mut Hooks {
            step: &mut |metrics| {
                steps.push(metrics.clone());
                Ok(())
            },
            progress: &mut |_| {},
            abort: &AtomicBool::new(false),
        },
    )
    .unwrap();
    assert_eq!(outcome.ended, Ended::Done);
    let failed: Vec<_> = outcome.checks.iter().filter(|c| c.outcome == Outcome::Failed).collect();
    assert!(failed.is_empty(), "{failed:?}");

    the_steps_agree(file, &steps);
    the_updates_agree(file, &start, &policy);
    the_heldout_rewards_agree(file, &start, &policy);
}

fn the_steps_agree(file: &Value, steps: &[StepMetrics]) {
    let log = file["log"].as_array().unwrap();
    assert_eq!(steps.len(), STEPS);
    assert_eq!(log.len(), STEPS);
    let mut total = 0;
    let (mut loss_off, mut norm_off) = (0.0f64, 0.0f64);
    for (i, (got, want)) in steps.iter().zip(log).enumerate() {
        let what = |name: &str| format!("step {}: {name}", i + 1);
        let number = |name: &str| want[name].as_f64();
        let batch = &file["batches"][i];
        assert_eq!(got.policy_tokens, batch["tokens"].as_u64().unwrap(), "{}", what("tokens"));
        total += got.policy_tokens;
        assert_eq!(got.total_policy_tokens, total);
        loss_off = loss_off.max((got.loss - number("loss").unwrap()).abs());
        assert!(loss_off <= 1e-4, "{}: got {}, want {}", what("loss"), got.loss, number("loss").unwrap());
        norm_off = norm_off.max((got.grad_norm / number("grad_norm").unwrap() - 1.0).abs());
        close(&what("gradient norm"), got.grad_norm, number("grad_norm").unwrap(), 2e-4);
        close(&what("learning rate"), got.learning_rate, number("learning_rate").unwrap(), 1e-12);
        let near = |name: &str, got: Option<f64>, tolerance: f64| {
            let Some(want) = number(name) else { return };
            let got = got.unwrap_or_else(|| panic!("{} is missing", what(name)));
            assert!((got - want).abs() <= tolerance, "{}: got {got}, want {want}", what(name));
        };
        near("kl", got.kl, 2e-3);
        near("rewards/chosen", got.reward_chosen, 1e-3);
        near("rewards/rejected", got.reward_rejected, 1e-3);
        near("rewards/margins", got.margin, 1e-3);
        if let Some(labels) = batch["labels"].as_array() {
            let desirable = labels.iter().filter(|l| l.as_bool() == Some(true)).count() as u64;
            assert_eq!((got.desirable, got.undesirable), (desirable, 4 - desirable), "{}", what("classes"));
        }
    }
    println!("largest difference: loss {loss_off:.1e}, gradient norm {norm_off:.1e} (relative)");
}

fn the_updates_agree(file: &Value, start: &Decoder, policy: &Decoder) {
    let mut furthest = 0.0f64;
    let mut seen = 0;
    for (before, after) in start.params().iter().zip(policy.params()) {
        let update = (&after.tensor - &before.tensor).unwrap();
        for piece in &after.pieces {
            let norm = |tensor: &candle_core::Tensor| {
                let rows = tensor.narrow(0, piece.rows.start, piece.rows.len()).unwrap();
                let squares = rows.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap();
                squares.to_scalar::<f64>().unwrap().sqrt()
            };
            let want = |list: &str| file[list][&piece.name].as_f64().unwrap();
            close(&format!("norm of {}", piece.name), norm(&after.tensor), want("param_norms"), 1e-5);
            furthest = furthest.max((norm(&update) / want("update_norms") - 1.0).abs());
            close(&format!("update of {}", piece.name), norm(&update), want("update_norms"), 1e-3);
            seen += 1;
        }
    }
    assert_eq!(seen, file["update_norms"].as_object().unwrap().len());
    println!("largest difference of an update norm: {furthest:.1e} (relative)");
}

fn the_heldout_rewards_agree(file: &Value, start: &Decoder, policy: &Decoder) {
    let heldout = pairs("traj_heldout.jsonl");
    let mut furthest = 0.0f64;
    for (side, name) in [(0, "chosen"), (1, "rejected")] {
        let sequences: Vec<&Sequence> =
            heldout.iter().map(|p| if side == 0 { &p.chosen } else { &p.rejected }).collect();
        let want = numbers(&file["heldout"][format!("rewards_{name}")]);
        assert_eq!(sequences.len(), want.len());
        let rewards = sequences.chunks(16).flat_map(|chunk| {
            let packed = Packed::of(chunk.iter().copied());
            let sum = |decoder: &Decoder| {
                let mut sums = vec![0.0; chunk.len()];
                for (read, logp) in packed.reads.iter().zip(decoder.logps(&packed).unwrap()) {
                    sums[read.sequence as usize] += logp;
                }
                sums
            };
            sum(policy).into_iter().zip(sum(start)).map(|(p, r)| BETA * (p - r)).collect::<Vec<_>>()
        });
        for (i, (got, want)) in rewards.zip(want).enumerate() {
            furthest = furthest.max((got - want).abs());
            assert!(furthest <= 1e-3, "held-out {name} {i}: got {got}, want {want}");
        }
    }
    println!("largest difference of a held-out reward: {furthest:.1e}");
}

#[test]
fn sft_follows_trl() {
    let Some(file) = golden("trl/traj_sft.json") else { return };
    reproduce(&file, &Method::Sft, TrainData::Paired(&pairs("traj_train.jsonl")));
}

#[test]
fn kto_follows_trl_on_interleaved_pairs() {
    let Some(file) = golden("trl/traj_kto.json") else { return };
    reproduce(&file, &kto(), TrainData::Paired(&pairs("traj_train.jsonl")[..60]));
}

#[test]
fn kto_follows_trl_on_steps_of_one_class() {
    let Some(file) = golden("trl/traj_kto_paired.json") else { return };
    let pairs = pairs("traj_train.jsonl");
    let example = |pair: &TokenizedPair, sequence: &Sequence, desirable| TokenizedExample {
        id: pair.id.clone(),
        subset: String::new(),
        sequence: sequence.clone(),
        desirable,
    };
    let chosen = pairs.iter().map(|p| example(p, &p.chosen, true));
    let rejected = pairs.iter().map(|p| example(p, &p.rejected, false));
    let examples: Vec<_> = chosen.chain(rejected).collect();
    reproduce(&file, &kto(), TrainData::Unpaired(&examples));
}
