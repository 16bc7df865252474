//! PPO's advantages, returns, loss and gradients against PyTorch's autograd on padded batches (`ppo_reference.py`).

use kto_eval::objective::online::{Part, Rollout, surrogate};
use kto_eval::plan::{Method, OnlineSpec};
use serde::Deserialize;

/// n samples of t tokens in all.
#[derive(Deserialize)]
struct Golden {
    beta: f64,
    clip: f64,
    gamma: f64,
    gae_lambda: f64,
    value_weight: f64,
    value_clip: f64,
    /// (n,)
    lengths: Vec<usize>,
    rewards: Vec<f64>,
    /// (t,), as all below but the losses.
    old: Vec<f64>,
    reference: Vec<f64>,
    now: Vec<f64>,
    old_values: Vec<f64>,
    values: Vec<f64>,
    advantages: Vec<f64>,
    returns: Vec<f64>,
    dlogps: Vec<f64>,
    dvalues: Vec<f64>,
    loss: f64,
    value_loss: f64,
}

#[test]
fn ppo_equals_an_independent_one_in_pytorch() {
    let g: Golden = serde_json::from_str(include_str!("ppo.json")).unwrap();
    let spec = OnlineSpec {
        clip: g.clip,
        gamma: g.gamma,
        gae_lambda: g.gae_lambda,
        value_weight: g.value_weight,
        value_clip: g.value_clip,
        samples: 1,
        ..OnlineSpec::default()
    };
    let ppo = surrogate(&Method::Ppo(spec)).unwrap();
    let rollout = Rollout {
        samples: 1,
        lengths: g.lengths,
        rewards: g.rewards,
        old: g.old,
        reference: g.reference,
        values: g.old_values,
    };
    rollout.check().unwrap();
    let found = ppo.advantages(&rollout, g.beta);
    let part = Part {
        lengths: &rollout.lengths,
        logps: &g.now,
        values: &g.values,
        old: &rollout.old,
        reference: &rollout.reference,
        old_values: &rollout.values,
        advantages: &found.advantages,
        returns: &found.returns,
        step_samples: rollout.lengths.len(),
        step_tokens: rollout.tokens(),
    };
    let share = ppo.share(&part, g.beta);
    assert!(share.clipped > 0 && share.clipped < share.ratios);
    for (what, ours, theirs) in [
        ("advantages", &found.advantages, &g.advantages),
        ("returns", &found.returns, &g.returns),
        ("gradients of log-probs", &share.dlogps, &g.dlogps),
        ("gradients of values", &share.dvalues, &g.dvalues),
        ("losses", &vec![share.loss, share.value_loss], &vec![g.loss, g.value_loss]),
    ] {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() < 1e-10, "{what} {i}: {a} against {b}");
        }
    }
}
