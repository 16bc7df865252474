//! What must hold of every objective whatever the numbers: gradients, symmetries, limits, extremes, and
//! independence of how a step is split.

mod methods;

use kto_eval::base::seed;
use kto_eval::objective::{
    ClassCounts, Evaluation, Feedback, LogProbs, Objective, StepContext, build, evaluate, info,
};
use kto_eval::plan::*;
use methods::every_method;
use rand::RngExt;

fn kto(beta: f64, lambda: Lambda) -> Method {
    Method::Kto(KtoSpec { beta, lambda, z0: Z0::Next })
}

/// n completions (a multiple of 2) with log-ratios of about ± `spread` nats.
fn batch(objective: &dyn Objective, n: usize, spread: f64, case: u64) -> LogProbs {
    let mut rng = seed::rng_at(7, "objective-properties", case);
    let tokens: Vec<usize> = (0..n).map(|_| rng.random_range(1..60)).collect();
    let reference: Vec<f64> = tokens.iter().map(|&t| -(t as f64) * rng.random_range(0.5..6.0)).collect();
    let policy: Vec<f64> =
        reference.iter().map(|r| (r + spread * rng.random_range(-1.0..1.0)).min(-0.01)).collect();
    let desirable = match objective.feedback() {
        Feedback::Paired => (0..n).map(|i| i % 2 == 0).collect(),
        Feedback::Unpaired => (0..n).map(|_| rng.random_bool(0.6)).collect(),
        _ => vec![true; n],
    };
    let prompt = if objective.needs_prompt() {
        (0..n / 2).map(|_| -100.0 * rng.random_range(0.1..1.0)).collect()
    } else {
        vec![]
    };
    let reference = if objective.needs_reference() { reference } else { vec![] };
    // As if every token of a completion had the same probability.
    let of_token = |(logp, &n): (&f64, &usize)| n as f64 * (-(logp / n as f64).exp()).ln_1p();
    let complement = if objective.needs_complement() {
        policy.iter().zip(&tokens).map(of_token).collect()
    } else {
        vec![]
    };
    LogProbs { policy, reference, tokens, desirable, prompt, complement }
}

fn context(objective: &dyn Objective, logps: &LogProbs) -> StepContext {
    let n = logps.policy.len();
    let chosen = |i: &usize| logps.desirable[*i];
    StepContext {
        examples: if objective.feedback() == Feedback::Paired { n / 2 } else { n },
        chosen_tokens: (0..n).filter(chosen).map(|i| logps.tokens[i]).sum(),
        rejected_tokens: (0..n).filter(|i| !chosen(i)).map(|i| logps.tokens[i]).sum(),
        prompt_tokens: 17 * logps.prompt.len(),
        z0: if objective.z0().is_some() { 0.4 } else { 0.0 },
        classes: ClassCounts { desirable: 30, undesirable: 100 },
        reward_shift: 0.05,
    }
}

fn finite(evaluation: &Evaluation) -> bool {
    let all = [
        &evaluation.losses,
        &evaluation.rewards,
        &evaluation.gradient,
        &evaluation.prompt_gradient,
        &evaluation.complement_gradient,
    ];
    evaluation.loss.is_finite() && all.iter().all(|list| list.iter().all(|x| x.is_finite()))
}

#[test]
fn gradients_are_finite_differences() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        for (case, spread) in [1.0, 1.0, 5.0, 30.0].into_iter().enumerate() {
            let logps = batch(objective.as_ref(), 8, spread, case as u64);
            let step = context(objective.as_ref(), &logps);
            let at = |logps: &LogProbs| evaluate(objective.as_ref(), logps, &step).unwrap();
            let exact = at(&logps);
            let difference = |change: &dyn Fn(&mut LogProbs, f64)| {
                let h = 1e-5;
                let (mut up, mut down) = (logps.clone(), logps.clone());
                change(&mut up, h);
                change(&mut down, -h);
                (at(&up).loss - at(&down).loss) / (2.0 * h)
            };
            let check = |what: &str, got: f64, want: f64| {
                assert!(
                    (got - want).abs() <= 1e-6 * (1.0 + want.abs()),
                    "{method:?} {what}: {got} against {want}"
                );
            };
            for i in 0..8 {
                check("policy", exact.gradient[i], difference(&|l, h| l.policy[i] += h));
            }
            for i in 0..logps.complement.len() {
                check("complement", exact.complement_gradient[i], difference(&|l, h| l.complement[i] += h));
            }
            for i in 0..logps.prompt.len() {
                check("prompt", exact.prompt_gradient[i], difference(&|l, h| l.prompt[i] += h));
            }
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_step() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        let logps = batch(objective.as_ref(), 16, 3.0, 11);
        let step = context(objective.as_ref(), &logps);
        let whole = evaluate(objective.as_ref(), &logps, &step).unwrap();
        for size in [2, 4, 8] {
            let (mut loss, mut gradient, mut prompt_gradient, mut complement) = (0.0, vec![], vec![], vec![]);
            for start in (0..16).step_by(size) {
                let end = start + size;
                let part = |list: &[f64]| if list.is_empty() { vec![] } else { list[start..end].to_vec() };
                let micro = LogProbs {
                    policy: part(&logps.policy),
                    reference: part(&logps.reference),
                    tokens: logps.tokens[start..end].to_vec(),
                    desirable: logps.desirable[start..end].to_vec(),
                    prompt: if logps.prompt.is_empty() {
                        vec![]
                    } else {
                        logps.prompt[start / 2..end / 2].to_vec()
                    },
                    complement: part(&logps.complement),
                };
                let got = evaluate(objective.as_ref(), &micro, &step).unwrap();
                loss += got.loss;
                gradient.extend(got.gradient);
                prompt_gradient.extend(got.prompt_gradient);
                complement.extend(got.complement_gradient);
            }
            assert!(
                (loss - whole.loss).abs() <= 1e-12 * whole.loss.abs(),
                "{method:?}: {loss} in parts of {size}"
            );
            assert_eq!(gradient, whole.gradient, "{method:?} in parts of {size}");
            assert_eq!(prompt_gradient, whole.prompt_gradient, "{method:?} in parts of {size}");
            assert_eq!(complement, whole.complement_gradient, "{method:?} in parts of {size}");
        }
    }
}

#[test]
fn extreme_log_ratios_stay_finite_and_pull_the_right_way() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        for (w, l) in [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4)] {
            let mut logps = batch(objective.as_ref(), 2, 0.0, 3);
            logps.desirable = vec![true, objective.feedback() == Feedback::Completions];
            if objective.needs_reference() {
                logps.reference = vec![-2e4; 2];
                logps.policy = vec![-2e4 + w, -2e4 + l];
            } else {
                logps.policy = vec![-1e4 + w.min(9999.0), -1e4 + l.min(9999.0)];
            }
            let got = evaluate(objective.as_ref(), &logps, &context(objective.as_ref(), &logps)).unwrap();
            assert!(finite(&got), "{method:?} at {w}, {l}: {got:?}");
            // Chosen never pushed down, rejected never up — save where the equation says so: a finite
            // target may be overshot (but not where the ranking is wrong), and APO-down lowers both.
            let target =
                matches!(method, Method::Ipo(_) | Method::SppoHard(_) | Method::Nca(_) | Method::Cdpo(_));
            if matches!(method, Method::ApoDown(_)) || (target && w >= l) {
                continue;
            }
            assert!(got.gradient[0] <= 0.0, "{method:?} pushes the chosen down at {w}, {l}");
            // CSFT raises both, each after its own control token.
            if !matches!(method, Method::Sft | Method::Csft(_)) {
                assert!(got.gradient[1] >= 0.0, "{method:?} pushes the rejected up at {w}, {l}");
            }
        }
    }
}

#[test]
fn a_wrong_ranking_costs_more_than_a_right_one() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        if objective.feedback() == Feedback::Completions || matches!(method, Method::Csft(_)) {
            continue;
        }
        let loss = |shift: f64| {
            let mut logps = batch(objective.as_ref(), 2, 0.0, 5);
            logps.desirable = vec![true, false];
            logps.tokens = vec![20, 20];
            if objective.needs_reference() {
                logps.reference = vec![-50.0, -50.0];
            }
            logps.policy = vec![-50.0 + shift, -50.0 - shift];
            evaluate(objective.as_ref(), &logps, &context(objective.as_ref(), &logps)).unwrap().loss
        };
        assert!(loss(0.5) < loss(-0.5), "{method:?}: {} and {}", loss(0.5), loss(-0.5));
    }
}

#[test]
fn shifting_chosen_and_rejected_alike_leaves_dpo_unchanged() {
    let margin_only: Vec<Method> = every_method()
        .into_iter()
        .filter(|m| matches!(m, Method::Dpo(_) | Method::Cdpo(_) | Method::RobustDpo(_) | Method::Hinge(_)))
        .collect();
    assert_eq!(margin_only.len(), 4);
    for method in margin_only {
        let objective = build(&method).unwrap();
        let logps = batch(objective.as_ref(), 8, 4.0, 2);
        let step = context(objective.as_ref(), &logps);
        let mut shifted = logps.clone();
        shifted.policy.iter_mut().for_each(|x| *x -= 12.5);
        let (a, b) = (
            evaluate(objective.as_ref(), &logps, &step).unwrap(),
            evaluate(objective.as_ref(), &shifted, &step).unwrap(),
        );
        assert!((a.loss - b.loss).abs() < 1e-12, "{method:?}");
        let net: f64 = a.gradient.iter().sum();
        assert!(net.abs() < 1e-15, "{method:?}: the gradient of a common shift is {net}");
    }
}

#[test]
fn swapping_chosen_and_rejected_flips_the_margin() {
    let objective = build(&Method::Dpo(DpoSpec { beta: 0.3 })).unwrap();
    let logps = batch(objective.as_ref(), 2, 4.0, 2);
    let mut swapped = logps.clone();
    for list in [&mut swapped.policy, &mut swapped.reference] {
        list.swap(0, 1);
    }
    let step = context(objective.as_ref(), &logps);
    let (a, b) = (
        evaluate(objective.as_ref(), &logps, &step).unwrap(),
        evaluate(objective.as_ref(), &swapped, &step).unwrap(),
    );
    let margin = a.rewards[0] - a.rewards[1];
    assert_eq!(b.rewards[0] - b.rewards[1], -margin);
    // log σ(h) − log σ(−h) = h
    assert!((b.loss - a.loss - margin).abs() < 1e-12);
}

#[test]
fn kto_tends_to_half_the_weight_as_beta_tends_to_zero() {
    let lambda = Lambda::Fixed { desirable: 1.0, undesirable: 1.5 };
    let objective = build(&kto(1e-9, lambda)).unwrap();
    let logps = batch(objective.as_ref(), 8, 5.0, 9);
    let step = context(objective.as_ref(), &logps);
    let got = evaluate(objective.as_ref(), &logps, &step).unwrap();
    for (loss, &desirable) in got.losses.iter().zip(&logps.desirable) {
        let limit = objective.identity_loss(desirable, &step).unwrap();
        assert_eq!(limit, if desirable { 0.5 } else { 0.75 });
        assert!((loss - limit).abs() < 1e-8);
    }
}

#[test]
fn kto_losses_scale_with_their_weights_and_ignore_the_other_class() {
    let base = batch(build(&kto(0.3, Lambda::Auto)).unwrap().as_ref(), 12, 5.0, 4);
    let step = context(build(&kto(0.3, Lambda::Auto)).unwrap().as_ref(), &base);
    let run = |desirable: f64, undesirable: f64| {
        let objective = build(&kto(0.3, Lambda::Fixed { desirable, undesirable })).unwrap();
        evaluate(objective.as_ref(), &base, &step).unwrap()
    };
    let (one, scaled) = (run(1.0, 1.0), run(3.0, 0.5));
    assert!(base.desirable.contains(&true) && base.desirable.contains(&false));
    for i in 0..12 {
        let by = if base.desirable[i] { 3.0 } else { 0.5 };
        assert!((scaled.losses[i] - by * one.losses[i]).abs() < 1e-14);
        assert!((scaled.gradient[i] - by * one.gradient[i]).abs() < 1e-14);
    }
}

#[test]
fn a_step_of_one_class_works() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        if objective.feedback() != Feedback::Unpaired {
            continue;
        }
        for class in [true, false] {
            let mut logps = batch(objective.as_ref(), 4, 2.0, 6);
            logps.desirable = vec![class; 4];
            let mut step = context(objective.as_ref(), &logps);
            step.classes =
                ClassCounts { desirable: 4 * usize::from(class), undesirable: 4 * usize::from(!class) };
            let got = evaluate(objective.as_ref(), &logps, &step).unwrap();
            let up = class || matches!(method, Method::Csft(_));
            assert!(finite(&got) && got.gradient.iter().all(|g| (*g < 0.0) == up), "{method:?}");
        }
    }
}

#[test]
fn a_policy_equal_to_its_reference_costs_what_the_method_says() {
    for method in every_method() {
        let objective = build(&method).unwrap();
        let mut logps = batch(objective.as_ref(), 8, 0.0, 8);
        if !objective.needs_reference() {
            continue;
        }
        logps.policy = logps.reference.clone();
        let step = StepContext { z0: 0.0, reward_shift: 0.0, ..context(objective.as_ref(), &logps) };
        let got = evaluate(objective.as_ref(), &logps, &step).unwrap();
        assert!(got.rewards.iter().all(|r| *r == 0.0), "{method:?}: rewards at step 0");
        for (i, loss) in got.losses.iter().enumerate() {
            let want = objective.identity_loss(logps.desirable[i], &step).unwrap();
            assert!((loss - want).abs() <= 1e-12 * want, "{method:?}: {loss}, not {want}");
        }
    }
}

#[test]
fn hyperparameters_out_of_range_are_refused_with_the_reason() {
    let refused = |method: Method, words: &str| {
        let message = match build(&method) {
            Ok(_) => panic!("{method:?} was accepted"),
            Err(e) => e.to_string(),
        };
        assert!(message.contains(words), "{method:?}: {message}");
    };
    for beta in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        refused(Method::Dpo(DpoSpec { beta }), "`beta`");
        refused(kto(beta, Lambda::Auto), "`beta`");
    }
    refused(kto(0.1, Lambda::Fixed { desirable: -1.0, undesirable: 1.0 }), "`lambda_desirable` is -1");
    refused(kto(0.1, Lambda::Fixed { desirable: 0.0, undesirable: 0.0 }), "both weights");
    refused(Method::RobustDpo(SmoothedSpec { beta: 0.1, label_smoothing: 0.5 }), "[0, 0.5)");
    refused(Method::Unlikelihood(UnlikelihoodSpec { alpha: -1.0 }), "`alpha`");
    let same = ControlSpec { desirable_token: "x".into(), undesirable_token: "x".into() };
    refused(Method::Csft(same), "could not be told apart");
    refused(Method::Simpo(SimpoSpec { beta: 0.1, gamma: -1.0 }), "`gamma`");
    let message = info("kot").unwrap_err().to_string();
    assert!(message.contains("unknown method `kot`") && message.contains("kto, dpo"), "{message}");
}

#[test]
fn mismatched_shapes_are_refused() {
    let objective = build(&Method::Dpo(DpoSpec { beta: 0.1 })).unwrap();
    let mut logps = batch(objective.as_ref(), 4, 1.0, 1);
    let step = context(objective.as_ref(), &logps);
    logps.tokens.pop();
    assert!(evaluate(objective.as_ref(), &logps, &step).unwrap_err().to_string().contains("3 of `tokens`"));
    let odd = batch(objective.as_ref(), 3, 1.0, 1);
    assert!(evaluate(objective.as_ref(), &odd, &step).unwrap_err().to_string().contains("do not make pairs"));
}
