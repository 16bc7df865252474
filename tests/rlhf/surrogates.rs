//! The surrogates: gradients by finite differences, splits, worked numbers, and TRL's own loss code.

use kto_eval::base::seed;
use kto_eval::objective::online::{
    Advantages, Part, Rollout, Share, Surrogate, generalised_advantages, surrogate,
};
use kto_eval::plan::{Method, OnlineSpec};
use rand::RngExt;
use serde_json::{Value, json};

use crate::reward_model::python;

fn spec(samples: usize) -> OnlineSpec {
    OnlineSpec { samples, clip: 0.2, value_clip: 0.15, value_weight: 0.3, ..OnlineSpec::default() }
}

fn methods(samples: usize) -> Vec<(Box<dyn Surrogate>, f64)> {
    let of = |m: Method| surrogate(&m).unwrap();
    vec![
        (of(Method::Rloo(spec(samples))), 0.07),
        (of(Method::Grpo(spec(samples))), 0.04),
        (of(Method::Ppo(spec(samples))), 0.05),
    ]
}

/// 12 samples in groups of `samples`; the policy has moved since, so that some ratios are beyond the clip.
fn rollout(samples: usize, critic: bool) -> (Rollout, Vec<f64>, Vec<f64>) {
    let mut rng = seed::rng_at(3, "test/rollout", samples as u64);
    let lengths: Vec<usize> = (0..12).map(|_| rng.random_range(1..9)).collect();
    let tokens: usize = lengths.iter().sum();
    let old: Vec<f64> = (0..tokens).map(|_| -rng.random_range(0.1..4.0)).collect();
    let mut near = |by: f64| old.iter().map(|o| (o + by * rng.random_range(-1.0..1.0)).min(-1e-3)).collect();
    let (reference, now): (Vec<f64>, Vec<f64>) = (near(0.4), near(0.35));
    let mut draw = |n: usize, by: f64| (0..n).map(|_| by * rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
    let rewards = draw(lengths.len(), 1.0);
    let values = if critic { draw(tokens, 0.5) } else { vec![] };
    let moved = if critic { draw(tokens, 0.5) } else { vec![] };
    (Rollout { samples, lengths, rewards, old, reference, values }, now, moved)
}

/// The share of samples `from..to`.
fn share(
    surrogate: &dyn Surrogate,
    (rollout, advantages): (&Rollout, &Advantages),
    (logps, values): (&[f64], &[f64]),
    beta: f64,
    (from, to): (usize, usize),
) -> Share {
    let start: usize = rollout.lengths[..from].iter().sum();
    let end: usize = rollout.lengths[..to].iter().sum();
    let of = |v: &'_ [f64]| -> Vec<f64> { if v.is_empty() { vec![] } else { v[start..end].to_vec() } };
    let (values, old_values, returns) = (of(values), of(&rollout.values), of(&advantages.returns));
    let part = Part {
        lengths: &rollout.lengths[from..to],
        logps: &logps[start..end],
        values: &values,
        old: &rollout.old[start..end],
        reference: &rollout.reference[start..end],
        old_values: &old_values,
        advantages: &advantages.advantages[start..end],
        returns: &returns,
        step_samples: rollout.lengths.len(),
        step_tokens: rollout.tokens(),
    };
    surrogate.share(&part, beta)
}

#[test]
fn gradients_are_finite_differences_within_and_beyond_the_clip() {
    for (surrogate, beta) in methods(4) {
        let (rollout, logps, values) = rollout(4, surrogate.critic());
        let advantages = surrogate.advantages(&rollout, beta);
        let at = |logps: &[f64], values: &[f64]| {
            share(surrogate.as_ref(), (&rollout, &advantages), (logps, values), beta, (0, 12))
        };
        let here = at(&logps, &values);
        assert!(
            here.clipped > 0 && here.clipped < here.ratios,
            "{}: {} clipped",
            surrogate.name(),
            here.clipped
        );
        let step = 1e-6;
        for (inputs, gradient, is_value) in [(&logps, &here.dlogps, false), (&values, &here.dvalues, true)] {
            assert_eq!(inputs.len(), gradient.len(), "{}", surrogate.name());
            for i in 0..inputs.len() {
                let moved = |by: f64| {
                    let mut v = inputs.clone();
                    v[i] += by;
                    if is_value { at(&logps, &v).loss } else { at(&v, &values).loss }
                };
                let central = (moved(step) - moved(-step)) / (2.0 * step);
                let off = (gradient[i] - central).abs();
                assert!(off < 1e-7, "{} {i}: {} against {central}", surrogate.name(), gradient[i]);
            }
        }
    }
}

#[test]
fn a_step_split_into_parts_has_the_same_loss_and_gradient() {
    for (surrogate, beta) in methods(3) {
        let (rollout, logps, values) = rollout(3, surrogate.critic());
        let advantages = surrogate.advantages(&rollout, beta);
        let of = |from, to| {
            share(surrogate.as_ref(), (&rollout, &advantages), (&logps, &values), beta, (from, to))
        };
        let (whole, parts) = (of(0, 12), [of(0, 3), of(3, 4), of(4, 12)]);
        let sum: f64 = parts.iter().map(|p| p.loss).sum();
        assert!((whole.loss - sum).abs() < 1e-12 * whole.loss.abs().max(1.0), "{}", surrogate.name());
        assert_eq!(whole.dlogps, parts.iter().flat_map(|p| p.dlogps.clone()).collect::<Vec<_>>());
        assert_eq!(whole.dvalues, parts.iter().flat_map(|p| p.dvalues.clone()).collect::<Vec<_>>());
        assert_eq!(whole.clipped, parts.iter().map(|p| p.clipped).sum::<usize>());
    }
}

#[test]
fn at_the_first_pass_the_gradient_is_the_policy_gradients() {
    for (surrogate, _) in methods(4) {
        // β = 0 leaves the advantages alone in the gradient of the log-probs.
        let (rollout, _, _) = rollout(4, surrogate.critic());
        let advantages = surrogate.advantages(&rollout, 0.0);
        let now = (rollout.old.as_slice(), rollout.values.as_slice());
        let found = share(surrogate.as_ref(), (&rollout, &advantages), now, 0.0, (0, 12));
        assert_eq!(found.clipped, 0);
        let mut at = 0;
        for &length in &rollout.lengths {
            for i in at..at + length {
                let weight = match surrogate.name() {
                    "rloo" => 12.0,
                    "grpo" => 12.0 * length as f64,
                    _ => rollout.tokens() as f64,
                };
                let want = -advantages.advantages[i] / weight;
                assert!((found.dlogps[i] - want).abs() < 1e-15, "{} {i}", surrogate.name());
            }
            at += length;
        }
    }
}

#[test]
fn advantages_are_those_worked_by_hand() {
    let rollout = Rollout {
        samples: 3,
        lengths: vec![1, 2, 1],
        rewards: vec![1.0, 0.0, 4.0],
        old: vec![-1.0, -1.0, -2.0, -0.5],
        reference: vec![-1.5, -1.0, -1.0, -0.5],
        values: vec![],
    };
    rollout.check().unwrap();
    assert_eq!(rollout.log_ratios(), [0.5, -1.0, 0.0]);
    let rloo = surrogate(&Method::Rloo(spec(3))).unwrap();
    // Penalised by 0.1 nats' worth: 0.95, 0.1, 4; baselines 2.05, 2.475, 0.525.
    let got = rloo.advantages(&rollout, 0.1).advantages;
    for (got, want) in got.iter().zip([-1.1, -2.375, -2.375, 3.475]) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
    let grpo = surrogate(&Method::Grpo(spec(3))).unwrap();
    let deviation = (26f64 / 3.0 / 2.0).sqrt() + 1e-4;
    let mean = 5.0 / 3.0;
    for (got, want) in grpo.advantages(&rollout, 0.1).advantages.iter().zip([1.0, 0.0, 0.0, 4.0]) {
        assert!((got - (want - mean) / deviation).abs() < 1e-12, "{got}");
    }
    // δ = 1 + 0.9·0.2 − 0.5 = 0.68 and 2 − 0.2 = 1.8; A = 0.68 + 0.9·0.5·1.8.
    let gae = generalised_advantages(&[1.0, 2.0], &[0.5, 0.2], 0.9, 0.5);
    assert!((gae[0] - 1.49).abs() < 1e-12 && (gae[1] - 1.8).abs() < 1e-12, "{gae:?}");
    // λ = 1 and γ = 1: what is still to come, less the value.
    let whole = generalised_advantages(&[0.1, 0.2, 1.0], &[0.3, 0.4, 0.5], 1.0, 1.0);
    for (got, want) in whole.iter().zip([1.0, 0.8, 0.5]) {
        assert!((got - want).abs() < 1e-12, "{whole:?}");
    }
    // A prompt whose samples all have one reward teaches nothing.
    let flat = Rollout { rewards: vec![0.3; 3], ..rollout };
    assert!(grpo.advantages(&flat, 0.0).advantages.iter().all(|a| a.abs() < 1e-9));
    assert!(rloo.advantages(&flat, 0.0).advantages.iter().all(|a| a.abs() < 1e-9));
}

const SCRIPT: &str = r#"
import json, sys, types, torch
from collections import defaultdict
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
job = json.load(open(sys.argv[1]))
class Accelerator:
    num_processes = 1
    def gather(self, x): return x
    def gather_for_metrics(self, x): return x
    def reduce(self, x, reduction=None): return x
lengths, width = job["lengths"], max(job["lengths"])
def padded(flat):
    out, at = torch.zeros(len(lengths), width, dtype=torch.float64), 0
    for i, n in enumerate(lengths):
        out[i, :n] = torch.tensor(flat[at:at + n], dtype=torch.float64)
        at += n
    return out
mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
new, old, ref = (padded(job[k]) for k in ("now", "old", "reference"))
new.requires_grad_(True)
def stub(**kw):
    args = types.SimpleNamespace(delta=None, use_bias_correction_kl=False)
    return types.SimpleNamespace(
        accelerator=Accelerator(), epsilon_low=job["clip"], epsilon_high=job["clip"], aux_loss_enabled=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, args=args,
        model=types.SimpleNamespace(training=True), top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", use_vllm=False, vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False, max_completion_length=width,
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new).detach(), None), **kw)
rewards, k = torch.tensor(job["rewards"], dtype=torch.float64), job["samples"]
base = {"prompt_ids": torch.zeros(len(lengths), 1, dtype=torch.long), "prompt_mask": torch.ones(len(lengths), 1, dtype=torch.long),
        "completion_ids": torch.zeros(len(lengths), width, dtype=torch.long), "completion_mask": mask,
        "num_items_in_batch": mask.sum()}
answers = {}
def answer(name, loss):
    new.grad = None
    loss.backward()
    flat = [g for row, n in zip(new.grad.tolist(), lengths) for g in row[:n]]
    answers[name] = {"loss": loss.item(), "gradient": flat}
# The lines of _generate_and_score_completions between rewards and advantages.
penalised = rewards - job["beta_rloo"] * ((old - ref) * mask).sum(-1)
grouped = penalised.view(-1, k)
advantages = penalised - ((grouped.sum(1, keepdim=True) - grouped) / (k - 1)).view(-1)
answer("rloo", RLOOTrainer._compute_loss(stub(beta=job["beta_rloo"]), None,
       {**base, "old_logps": (old * mask).sum(1), "advantages": advantages}))
grouped = rewards.view(-1, k)
advantages = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)).view(-1)
answer("grpo", GRPOTrainer._compute_loss(stub(beta=job["beta_grpo"], loss_type="grpo"), None,
       {**base, "old_per_token_logps": old, "ref_per_token_logps": ref, "advantages": advantages}))
json.dump(answers, open(job["folder"] + "/answers.json", "w"))
"#;

/// `pip install torch transformers trl==1.16` into a venv; its python in KTO_EVAL_PYTHON (default
/// python3). Then: cargo test --test rlhf -- --ignored trl
#[test]
#[ignore = "needs Python with TRL: pip install torch transformers trl==1.16"]
fn losses_and_gradients_equal_those_of_trl() {
    let dir = tempfile::tempdir().unwrap();
    let (rollout, now, _) = rollout(4, false);
    let job = json!({
        "lengths": rollout.lengths, "rewards": rollout.rewards, "old": rollout.old, "reference": rollout.reference,
        "now": now, "samples": 4, "clip": 0.2, "beta_rloo": 0.07, "beta_grpo": 0.04, "folder": dir.path(),
    });
    let answers: Value = python(dir.path(), SCRIPT, &job);
    for (surrogate, beta) in methods(4).into_iter().take(2) {
        let advantages = surrogate.advantages(&rollout, beta);
        let got = share(surrogate.as_ref(), (&rollout, &advantages), (&now, &[]), beta, (0, 12));
        let theirs = &answers[surrogate.name()];
        let close = |what: &str, got: f64, want: &Value| {
            let want = want.as_f64().unwrap();
            let off = (got - want).abs() / want.abs().max(1e-3);
            assert!(off < 1e-9, "{} {what}: {got} against {want}", surrogate.name());
        };
        close("loss", got.loss, &theirs["loss"]);
        for (i, gradient) in got.dlogps.iter().enumerate() {
            close("gradient", *gradient, &theirs["gradient"][i]);
        }
        println!("{}: loss {} as TRL's {}", surrogate.name(), got.loss, theirs["loss"]);
    }
}
