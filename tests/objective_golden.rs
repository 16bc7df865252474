//! Losses and rewards of every method on fixed log-probs, against numbers of independent implementations
//! (plain fp64 formulas, TRL, HALOs).

mod golden;

use golden::{close, golden, numbers};
use kto_eval::objective::{ClassCounts, Evaluation, LogProbs, StepContext, build, evaluate, kto};
use kto_eval::plan::*;
use serde_json::Value;

/// The batch of 8 pairs of `dpo_family.json`, in the layout of [`LogProbs`].
fn pairs(case: &Value) -> (LogProbs, StepContext) {
    let plain = &case["plain_f64"];
    let of = |chosen: &str, rejected: &str| -> Vec<f64> {
        let (c, r) = (numbers(&plain[chosen]), numbers(&plain[rejected]));
        c.iter().zip(&r).flat_map(|(c, r)| [*c, *r]).collect()
    };
    let tokens: Vec<usize> = of("n_chosen", "n_rejected").iter().map(|&n| n as usize).collect();
    let step = StepContext {
        examples: 8,
        chosen_tokens: tokens.iter().step_by(2).sum(),
        classes: ClassCounts { desirable: 8, undesirable: 8 },
        ..Default::default()
    };
    let logps = LogProbs {
        policy: of("policy_chosen_logps", "policy_rejected_logps"),
        reference: of("ref_chosen_logps", "ref_rejected_logps"),
        desirable: (0..16).map(|i| i % 2 == 0).collect(),
        tokens,
        prompt: vec![],
        complement: vec![],
    };
    (logps, step)
}

fn run(method: &Method, logps: &LogProbs, step: &StepContext) -> Evaluation {
    evaluate(build(method).unwrap().as_ref(), logps, step).unwrap()
}

#[test]
fn the_dpo_family_gives_the_reference_losses() {
    let Some(file) = golden("trl/dpo_family.json") else { return };
    let case = &file["cases"][0];
    let (logps, step) = pairs(case);
    let beta = BetaSpec { beta: 0.1 };
    let smoothed = SmoothedSpec { beta: 0.1, label_smoothing: 0.1 };
    let methods = [
        ("sigmoid", Method::Dpo(DpoSpec { beta: 0.1 })),
        ("hinge", Method::Hinge(beta.clone())),
        ("ipo", Method::Ipo(IpoSpec { beta: 0.1, length_normalised: true })),
        ("ipo_unnormalized", Method::Ipo(IpoSpec { beta: 0.1, length_normalised: false })),
        ("robust_0p1", Method::RobustDpo(smoothed.clone())),
        ("cdpo_0p1", Method::Cdpo(smoothed)),
        ("sigmoid_norm", Method::SigmoidNorm(beta.clone())),
        ("apo_zero", Method::ApoZero(beta.clone())),
        ("apo_down", Method::ApoDown(beta.clone())),
        ("sppo_hard", Method::SppoHard(beta.clone())),
        ("nca_pair", Method::Nca(beta)),
        ("simpo_b2_g1", Method::Simpo(SimpoSpec { beta: 2.0, gamma: 1.0 })),
        ("simpo_b0p1_g0p5", Method::Simpo(SimpoSpec { beta: 0.1, gamma: 0.5 })),
        ("slic_noref", Method::Slic(LikelihoodSpec { beta: 0.1, alpha: 0.0 })),
    ];
    for (name, method) in methods {
        let want = &case["plain_f64"]["losses"][name];
        let got = run(&method, &logps, &step);
        close(name, got.loss, want["loss"].as_f64().unwrap(), 1e-12);
        for (i, (got, want)) in got.losses.iter().zip(numbers(&want["per_example"])).enumerate() {
            close(&format!("{name}[{i}]"), *got, want, 1e-11);
        }
        if let Some(trl) = case["trl"][name.trim_end_matches("_0p1")]["loss"].as_f64() {
            close(&format!("{name} (TRL)"), got.loss, trl, 1e-5);
        }
    }
    let dpo = run(&Method::Dpo(DpoSpec { beta: 0.1 }), &logps, &step);
    let (want_w, want_l) =
        (numbers(&case["plain_f64"]["rewards_chosen"]), numbers(&case["plain_f64"]["rewards_rejected"]));
    for i in 0..8 {
        close("reward chosen", dpo.rewards[2 * i], want_w[i], 1e-10);
        close("reward rejected", dpo.rewards[2 * i + 1], want_l[i], 1e-10);
    }
}

#[test]
fn sft_and_the_methods_with_a_likelihood_term_give_the_reference_losses() {
    let Some(file) = golden("trl/dpo_family.json") else { return };
    let case = &file["cases"][0];
    let losses = &case["plain_f64"]["losses"];
    let (mut logps, mut step) = pairs(case);

    let nll = losses["sft_completion_only"]["loss"].as_f64().unwrap();
    let chosen = LogProbs {
        policy: logps.policy.iter().copied().step_by(2).collect(),
        tokens: logps.tokens.iter().copied().step_by(2).collect(),
        desirable: vec![true; 8],
        ..Default::default()
    };
    close("sft", run(&Method::Sft, &chosen, &step).loss, nll, 1e-12);

    // CPO is its preference term plus α times that likelihood.
    let cpo = |alpha| run(&Method::Cpo(LikelihoodSpec { beta: 0.1, alpha }), &logps, &step).loss;
    close("cpo's likelihood term", cpo(2.0) - cpo(0.0), 2.0 * nll, 1e-12);

    // ORPO's likelihood covers the prompt; the file gives its sum over prompt and completion only. Each prompt's tokens
    // less one: the first has nothing before it.
    step.prompt_tokens = [93, 19, 140, 76, 71, 15, 78, 24].iter().sum();
    let full = losses["orpo_b0p1"]["nll_full_sequence"].as_f64().unwrap()
        * (step.prompt_tokens + step.chosen_tokens) as f64;
    let prompt_sum = -full - chosen.policy.iter().sum::<f64>();
    logps.prompt = vec![prompt_sum / 8.0; 8];
    let orpo = |likelihood| run(&Method::Orpo(OrpoSpec { beta: 0.1, likelihood }), &logps, &step);
    let got = orpo(Likelihood::Sequence);
    close("orpo", got.loss, losses["orpo_b0p1"]["loss"].as_f64().unwrap(), 1e-12);
    close("orpo (TRL)", got.loss, case["experimental"]["orpo_b0p1"]["loss"].as_f64().unwrap(), 1e-5);
    let odds = numbers(&losses["orpo_b0p1"]["log_odds"]);
    for (loss, odds) in got.losses.iter().zip(&odds) {
        close("orpo's odds term", *loss, 0.1 * (-odds).exp().ln_1p(), 1e-10);
    }
    let by_completion = orpo(Likelihood::Completion).loss;
    close("orpo on completions", by_completion - nll, got.losses.iter().sum::<f64>() / 8.0, 1e-10);
}

#[test]
fn bco_with_the_reward_mean_of_the_batch_gives_trls_loss() {
    let Some(file) = golden("trl/dpo_family.json") else { return };
    let case = &file["cases"][0];
    let (logps, mut step) = pairs(case);
    let rewards = run(&Method::Dpo(DpoSpec { beta: 0.1 }), &logps, &step).rewards;
    // TRL's running mean at its first batch is that batch's mean, and its loss a sum over the pair.
    step.reward_shift = rewards.iter().sum::<f64>() / 16.0;
    let got = run(&Method::Bco(BetaSpec { beta: 0.1 }), &logps, &step);
    close("bco", got.loss, case["trl"]["bco_pair"]["loss"].as_f64().unwrap(), 1e-5);
}

#[test]
fn kto_gives_the_reference_losses_under_both_mismatches() {
    let Some(file) = golden("trl/kto.json") else { return };
    let Some(halos) = golden("trl/halos.json") else { return };
    let case = &file["cases"][0];
    let plain = &case["plain_f64"];
    let labels: Vec<bool> = case["labels"].as_array().unwrap().iter().map(|l| l.as_bool().unwrap()).collect();
    let logps = LogProbs {
        policy: numbers(&plain["policy_logps"]),
        reference: numbers(&plain["ref_logps"]),
        tokens: vec![1; 8],
        desirable: labels,
        prompt: vec![],
        complement: vec![],
    };
    let lambda = Lambda::Fixed { desirable: 1.0, undesirable: 1.33 };
    let loss_at = |z0: f64| {
        let step = StepContext { examples: 8, z0, ..Default::default() };
        run(&Method::Kto(KtoSpec { beta: 0.1, lambda, z0: Z0::Previous }), &logps, &step)
    };

    let (policy, reference) = (numbers(&plain["policy_kl_logps"]), numbers(&plain["ref_kl_logps"]));
    let ratios: Vec<f64> = policy.iter().zip(&reference).map(|(p, r)| p - r).collect();
    let (raw, clamped) = kto::z0(&ratios);
    close("z0 before the clamp", raw, plain["kl_raw"].as_f64().unwrap(), 1e-9);
    let got = loss_at(clamped);
    close("loss", got.loss, plain["loss"].as_f64().unwrap(), 1e-12);
    close("loss (TRL)", got.loss, case["trl"]["loss"].as_f64().unwrap(), 1e-5);
    for (i, want) in numbers(&plain["per_example_loss"]).iter().enumerate() {
        close("per-example loss", got.losses[i], *want, 1e-11);
    }
    for (i, want) in numbers(&plain["rewards"]).iter().enumerate() {
        close("reward", got.rewards[i], *want, 1e-10);
    }

    let raw_next = plain["kl_raw_halos_rotation"].as_f64().unwrap();
    let want = halos["kto"][0]["loss"].as_f64().unwrap();
    close("loss with the next completion (HALOs)", loss_at(raw_next).loss, want, 1e-5);
    assert!((loss_at(raw_next).loss - got.loss).abs() > 5e-5, "the two estimators differ on this batch");
}
