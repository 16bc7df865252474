//! The methods that tests of every method go through.

use kto_eval::objective::{Feedback, MethodInfo, build, methods};
use kto_eval::plan::*;

/// Every method that learns from given completions, some with several settings. Those that learn from rollouts have tests
/// of their own (`tests/rlhf.rs`).
pub fn every_method() -> Vec<Method> {
    let beta = BetaSpec { beta: 0.3 };
    let smoothed = SmoothedSpec { beta: 0.3, label_smoothing: 0.1 };
    let likelihood = LikelihoodSpec { beta: 0.3, alpha: 0.5 };
    let kto = |lambda, z0| Method::Kto(KtoSpec { beta: 0.3, lambda, z0 });
    let all = vec![
        Method::Sft,
        kto(Lambda::Auto, Z0::Next),
        kto(Lambda::Auto, Z0::Previous),
        kto(Lambda::Auto, Z0::Zero),
        kto(Lambda::Fixed { desirable: 1.0, undesirable: 1.33 }, Z0::Next),
        Method::Dpo(DpoSpec { beta: 0.3 }),
        Method::Ipo(IpoSpec { beta: 0.3, length_normalised: true }),
        Method::Ipo(IpoSpec { beta: 0.3, length_normalised: false }),
        Method::Cdpo(smoothed.clone()),
        Method::RobustDpo(smoothed),
        Method::Hinge(beta.clone()),
        Method::Simpo(SimpoSpec { beta: 2.0, gamma: 0.5 }),
        Method::Orpo(OrpoSpec { beta: 0.3, likelihood: Likelihood::Sequence }),
        Method::Orpo(OrpoSpec { beta: 0.3, likelihood: Likelihood::Completion }),
        Method::Cpo(likelihood.clone()),
        Method::Slic(likelihood),
        Method::ApoZero(beta.clone()),
        Method::ApoDown(beta.clone()),
        Method::SigmoidNorm(beta.clone()),
        Method::SppoHard(beta.clone()),
        Method::Nca(beta.clone()),
        Method::Bco(beta),
        Method::Csft(ControlSpec { desirable_token: "<|good|>".into(), undesirable_token: "<|bad|>".into() }),
        Method::Unlikelihood(UnlikelihoodSpec { alpha: 0.7 }),
        // Its "log-probs" are scores.
        Method::Reward,
    ];
    let built: Vec<&str> = all.iter().map(|m| build(m).unwrap().name()).collect();
    let rollouts = |m: &MethodInfo| m.feedback == Feedback::Prompts || m.name == "ppo-offline";
    for method in methods().iter().filter(|m| !rollouts(m)) {
        assert!(built.contains(&method.name), "{} is listed but not tested", method.name);
    }
    all
}
