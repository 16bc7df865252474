//! Losses and gradients of every method through the real decoder, for a policy and a reference that differ,
//! against plain fp64 formulas, TRL and HALOs on the same batch of 8.

mod golden;

use candle_core::{DType, Device};
use golden::{close, golden, numbers, shared};
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, Gradients};
use kto_eval::objective::{ClassCounts, Feedback, build};
use kto_eval::plan::*;
use kto_eval::train::{
    Reference, ReferenceCache, StepInput, StepResult, Unit, compute_step, mismatched_sequences,
};
use serde_json::Value;

struct Fixture {
    policy: Decoder,
    reference: Decoder,
    cache: ReferenceCache,
    pairs: Vec<Unit>,
    /// Five desirable and three undesirable completions of the same prompts.
    singles: Vec<Unit>,
    batch: Value,
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|x| x as u32).collect()
}

fn sequence(prompt: &Value, completion: &Value) -> Sequence {
    let (prompt, completion) = (ids(prompt), ids(completion));
    Sequence { prompt_len: prompt.len(), ids: [prompt, completion].concat().into() }
}

impl Fixture {
    fn load() -> Option<Self> {
        let batch = golden("trl/batch8.json")?;
        let load = |name: &str| {
            Decoder::load(&shared().join("models").join(name), DType::F32, &Device::Cpu).unwrap()
        };
        let reference = load("golden-reference");
        let cache = ReferenceCache::open(&reference.weights_hash().unwrap(), None);
        let unit = |row: &Value, completions: &[&str], desirable| Unit {
            id: row["prompt"].as_str().unwrap().to_owned(),
            sequences: completions.iter().map(|c| sequence(&row["prompt_ids"], &row[c])).collect(),
            desirable,
        };
        let rows = |name: &str| batch[name].as_array().unwrap().clone();
        let pairs = rows("pairs").iter().map(|r| unit(r, &["chosen_ids", "rejected_ids"], true)).collect();
        let singles =
            rows("kto").iter().map(|r| unit(r, &["completion_ids"], r["label"].as_bool().unwrap())).collect();
        Some(Self { policy: load("golden-policy"), reference, cache, pairs, singles, batch })
    }

    fn run(&self, method: &Method) -> (StepResult, Gradients) {
        let objective = build(method).unwrap();
        let chosen: Vec<Unit> = self
            .pairs
            .iter()
            .map(|p| Unit { sequences: vec![p.sequences[0].clone()], ..p.clone() })
            .collect();
        let units: Vec<&Unit> = match objective.feedback() {
            Feedback::Paired => &self.pairs,
            Feedback::Unpaired => &self.singles,
            _ => &chosen,
        }
        .iter()
        .collect();
        let mismatched =
            objective.z0().map(|z0| mismatched_sequences(&units, z0, 512).unwrap()).unwrap_or_default();
        let input = StepInput {
            units: &units,
            mismatched: &mismatched,
            reference: Some(Reference::new(&self.reference, &self.cache)),
            micro_tokens: 1024,
            dropout: None,
            classes: ClassCounts::default(),
            reward_shift: 0.0,
        };
        let mut gradients = Gradients::zeros(&self.policy).unwrap();
        let result = compute_step(&self.policy, objective.as_ref(), &input, &mut gradients).unwrap();
        (result, gradients)
    }
}

/// The norm of every tensor's gradient, and the first entries of some.
fn tensors_agree(fixture: &Fixture, gradients: &Gradients, want: &Value) {
    let norms = want["grad_norm_per_param"].as_object().unwrap();
    let got = gradients.named_norms().unwrap();
    assert_eq!(got.len(), norms.len());
    for (name, norm) in got {
        close(&name, norm, norms[&name].as_f64().unwrap(), 1e-4);
    }
    let mut heads = 0;
    for (param, gradient) in fixture.policy.params().iter().zip(gradients.tensors()) {
        for piece in &param.pieces {
            let Some(head) = want["grad_head"].get(&piece.name) else { continue };
            let rows = gradient.narrow(0, piece.rows.start, piece.rows.len()).unwrap().flatten_all().unwrap();
            let got = rows.to_vec1::<f32>().unwrap();
            for (got, want) in got.iter().zip(numbers(head)) {
                assert!((f64::from(*got) - want).abs() < 2e-6, "{}: {got} against {want}", piece.name);
            }
            heads += 1;
        }
    }
    assert_eq!(heads, want["grad_head"].as_object().unwrap().len());
}

#[test]
fn paired_methods_and_sft_give_the_reference_losses_and_gradients() {
    let (Some(fixture), Some(file)) = (Fixture::load(), golden("trl/dpo_family.json")) else { return };
    let case = &file["cases"][0];
    let beta = BetaSpec { beta: 0.1 };
    let smoothed = SmoothedSpec { beta: 0.1, label_smoothing: 0.1 };
    let methods = [
        ("sft_completion_only", Method::Sft),
        ("sigmoid", Method::Dpo(DpoSpec { beta: 0.1 })),
        ("hinge", Method::Hinge(beta.clone())),
        ("ipo", Method::Ipo(IpoSpec { beta: 0.1, length_normalised: true })),
        ("robust_0p1", Method::RobustDpo(smoothed.clone())),
        ("cdpo_0p1", Method::Cdpo(smoothed)),
        ("sigmoid_norm", Method::SigmoidNorm(beta.clone())),
        ("apo_zero", Method::ApoZero(beta.clone())),
        ("apo_down", Method::ApoDown(beta.clone())),
        ("sppo_hard", Method::SppoHard(beta.clone())),
        ("nca_pair", Method::Nca(beta)),
        ("simpo_b2_g1", Method::Simpo(SimpoSpec { beta: 2.0, gamma: 1.0 })),
        ("slic_noref", Method::Slic(LikelihoodSpec { beta: 0.1, alpha: 0.0 })),
        ("orpo_b0p1", Method::Orpo(OrpoSpec { beta: 0.1, likelihood: Likelihood::Sequence })),
    ];
    for (name, method) in methods {
        let want = &case["plain_f64"]["losses"][name];
        let (result, gradients) = fixture.run(&method);
        close(&format!("{name}: loss"), result.loss, want["loss"].as_f64().unwrap(), 1e-5);
        let norm = gradients.global_norm().unwrap();
        close(&format!("{name}: gradient norm"), norm, want["grad_norm"].as_f64().unwrap(), 1e-4);
        let trl = &case["trl"][name];
        if let Some(want) = trl["grad_norm"].as_f64() {
            close(&format!("{name}: TRL's loss"), result.loss, trl["loss"].as_f64().unwrap(), 1e-5);
            close(&format!("{name}: TRL's gradient norm"), norm, want, 1e-4);
        }
        if trl.get("grad_head").is_some() {
            tensors_agree(&fixture, &gradients, trl);
        }
    }
}

#[test]
fn kto_gives_trls_loss_and_gradients_and_with_the_other_mismatch_halos() {
    let (Some(fixture), Some(kto), Some(halos)) =
        (Fixture::load(), golden("trl/kto.json"), golden("trl/halos.json"))
    else {
        return;
    };
    let (trl, plain) = (&kto["cases"][0]["trl"], &kto["cases"][0]["plain_f64"]);
    let lambda = Lambda::Fixed { desirable: 1.0, undesirable: 1.33 };
    let method = |z0| Method::Kto(KtoSpec { beta: 0.1, lambda, z0 });

    let (result, gradients) = fixture.run(&method(Z0::Previous));
    close("loss", result.loss, plain["loss"].as_f64().unwrap(), 1e-5);
    close("TRL's loss", result.loss, trl["loss"].as_f64().unwrap(), 1e-5);
    let (raw, clamped) = result.z0.unwrap();
    assert!((raw - plain["kl_raw"].as_f64().unwrap()).abs() < 1e-4, "z0 is {raw}");
    assert_eq!(raw, clamped, "above 0 the clamp does nothing");
    for (got, want) in result.rewards.iter().zip(numbers(&plain["rewards"])) {
        assert!((got - want).abs() < 1e-5, "reward {got}, want {want}");
    }
    close("gradient norm", gradients.global_norm().unwrap(), trl["grad_norm"].as_f64().unwrap(), 1e-4);
    tensors_agree(&fixture, &gradients, trl);

    let want = &halos["kto"][0];
    let (result, gradients) = fixture.run(&method(Z0::Next));
    close("HALOs' loss", result.loss, want["loss"].as_f64().unwrap(), 1e-5);
    close(
        "HALOs' gradient norm",
        gradients.global_norm().unwrap(),
        want["grad_norm"].as_f64().unwrap(),
        1e-4,
    );
    tensors_agree(&fixture, &gradients, want);
}

#[test]
fn mismatched_completions_are_those_of_trl_and_halos() {
    let Some(fixture) = Fixture::load() else { return };
    let units: Vec<&Unit> = fixture.singles.iter().collect();
    for (z0, name) in [(Z0::Previous, "kl_completion_ids_trl"), (Z0::Next, "kl_completion_ids_halos")] {
        let got = mismatched_sequences(&units, z0, 512).unwrap();
        for (got, row) in got.iter().zip(fixture.batch["kto"].as_array().unwrap()) {
            assert_eq!(*got, sequence(&row["prompt_ids"], &row[name]));
        }
    }
}
