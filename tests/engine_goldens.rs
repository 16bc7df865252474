//! Log-probs, greedy continuations and gradients against Hugging Face transformers and TRL.

mod engine;

use candle_core::{DType, Device};
use engine::{families, floats, ids, json, largest_difference, sequence, shared, transformers_logps};
use kto_eval::model::{Decoder, Gradients, Packed};
use serde_json::Value;

#[test]
fn every_family_gives_the_log_probs_of_transformers() {
    let dir = families();
    let golden = json(&dir.join("families.json"));
    let models = golden["models"].as_object().expect("models");
    assert_eq!(models.len(), 10);
    for (name, model) in models {
        for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F64, 5e-5)] {
            let decoder = Decoder::load(&dir.join(name), dtype, &Device::Cpu).unwrap();
            assert_eq!(decoder.num_params() as u64, model["params"].as_u64().unwrap(), "{name}");
            let sequences = model["sequences"].as_array().unwrap();
            let rows: Vec<_> = sequences.iter().map(|s| sequence(&ids(&s["ids"]), 1)).collect();
            let wanted: Vec<f64> = sequences.iter().flat_map(|s| floats(&s["token_logps"])).collect();
            let packed = Packed::of(&rows);
            let error = largest_difference(&decoder.logps(&packed).unwrap(), &wanted);
            assert!(error < tolerance, "{name} in {dtype:?}: {error:e}");
            let kept = decoder.forward(&packed).unwrap().0;
            assert!(largest_difference(&kept, &wanted) < tolerance, "{name} with a tape");
        }
    }
}

#[test]
fn greedy_continuations_through_the_cache_are_those_of_transformers() {
    let dir = families();
    let golden = json(&dir.join("families.json"));
    for (name, model) in golden["models"].as_object().unwrap() {
        let decoder = Decoder::load(&dir.join(name), DType::F32, &Device::Cpu).unwrap();
        let wanted = ids(&model["greedy_16"]);
        let mut found = wanted[..8].to_vec();
        let mut cache = decoder.new_cache(1, 64).unwrap();
        let mut next = found.clone();
        for _ in 0..16 {
            let logits = decoder.step(&mut cache, &[(0, &next)]).unwrap();
            let best = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
            found.push(best);
            next = vec![best];
        }
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn token_log_probs_of_the_golden_models_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for model in ["golden-policy", "golden-reference"] {
        let golden = json(&shared.join(format!("golden/trl/forward_{model}.json")));
        let decoder = Decoder::load(&shared.join("models").join(model), DType::F32, &Device::Cpu).unwrap();
        for s in golden["sequences"].as_array().unwrap() {
            let row = sequence(&ids(&s["ids"]), s["n_prompt"].as_u64().unwrap() as usize);
            let logps = decoder.logps(&Packed::of([&row])).unwrap();
            assert!(largest_difference(&logps, &floats(&s["token_logps"])) < 1e-4, "{model}");
            let sum: f64 = logps.iter().sum();
            assert!((sum - s["sum_logp_f64"].as_f64().unwrap()).abs() < 1e-3, "{model}: {sum}");
        }
    }
}

/// `pip install torch --index-url https://download.pytorch.org/whl/cpu && pip install transformers`, then
/// `KTO_EVAL_PYTHON=…/python cargo test --test engine_goldens -- --ignored`.
#[test]
#[ignore = "needs Python with torch and transformers (see the comment above it)"]
fn transformers_opens_changed_checkpoints_whole_and_in_shards_with_the_same_log_probs() {
    let families = families();
    let golden = json(&families.join("families.json"));
    for name in golden["models"].as_object().unwrap().keys() {
        let mut decoder = Decoder::load(&families.join(name), DType::F32, &Device::Cpu).unwrap();
        let row: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 200).collect();
        let packed = Packed::of([&sequence(&row, 1)]);
        let before = decoder.logps(&packed).unwrap();
        // A step along the gradient of the row's likelihood changes every tensor.
        let mut grads = Gradients::zeros(&decoder).unwrap();
        let (logps, tape) = decoder.forward(&packed).unwrap();
        decoder.backward(tape, &vec![1.0; logps.len()], &mut grads).unwrap();
        let step = 0.05 / grads.global_norm().unwrap();
        for (param, grad) in decoder.params_mut().iter_mut().zip(grads.tensors()) {
            param.tensor = (&param.tensor + (grad * step).unwrap()).unwrap();
        }
        let mine = decoder.logps(&packed).unwrap();
        assert!(largest_difference(&mine, &before) > 1e-3, "{name} has moved");
        for max_bytes in [u64::MAX, 100_000] {
            let dir = tempfile::tempdir().unwrap();
            decoder.save_in_shards(dir.path(), max_bytes).unwrap();
            assert_eq!(dir.path().join("model.safetensors").is_file(), max_bytes == u64::MAX);
            let wanted = transformers_logps(dir.path(), &row);
            let error = largest_difference(&mine, &wanted);
            println!("{name}, at most {max_bytes} bytes a file: log-probs within {error:.1e}");
            assert!(error < 1e-4, "{name}: {error:e}");
        }
    }
}

/// DPO's sigmoid loss on the golden batch: value and gradient norm of every tensor, prompts shared or not.
#[test]
fn gradient_norms_of_dpo_are_those_of_trl() {
    let Some(shared) = shared() else { return };
    let golden = json(&shared.join("golden/trl/dpo_family.json"));
    let case = golden["cases"].as_array().unwrap().iter().find(|c| c["ref"] == "golden-reference").unwrap();
    let beta = case["beta"].as_f64().unwrap();
    let batch = json(&shared.join("golden/trl/batch8.json"));
    let load =
        |name: &str| Decoder::load(&shared.join("models").join(name), DType::F32, &Device::Cpu).unwrap();
    let (policy, reference) = (load("golden-policy"), load("golden-reference"));
    for share in [true, false] {
        let packed = pack_pairs(&batch["pairs"], share);
        let sums = |logps: &[f64]| {
            let mut sums = vec![0.0; packed.sequences];
            for (read, logp) in packed.reads.iter().zip(logps) {
                sums[read.sequence as usize] += logp;
            }
            sums
        };
        let (logps, tape) = policy.forward(&packed).unwrap();
        let (mine, theirs) = (sums(&logps), sums(&reference.logps(&packed).unwrap()));
        let wanted = floats(&case["plain_f64"]["policy_chosen_logps"]);
        let chosen: Vec<f64> = mine.iter().copied().step_by(2).collect();
        assert!(largest_difference(&chosen, &wanted) < 1e-3);
        let margins: Vec<f64> = (0..8)
            .map(|i| beta * (mine[2 * i] - theirs[2 * i] - mine[2 * i + 1] + theirs[2 * i + 1]))
            .collect();
        let loss = margins.iter().map(|m| (1.0 + (-m).exp()).ln()).sum::<f64>() / 8.0;
        let trl = &case["trl"]["sigmoid"];
        assert!((loss - trl["loss"].as_f64().unwrap()).abs() < 1e-5, "{loss}");
        let slope = |sequence: usize| {
            let sign = if sequence.is_multiple_of(2) { -1.0 } else { 1.0 };
            sign * beta / (1.0 + margins[sequence / 2].exp()) / 8.0
        };
        let dlogps: Vec<f64> = packed.reads.iter().map(|r| slope(r.sequence as usize)).collect();
        let mut grads = Gradients::zeros(&policy).unwrap();
        policy.backward(tape, &dlogps, &mut grads).unwrap();
        let norms = grads.named_norms().unwrap();
        let wanted = trl["grad_norm_per_param"].as_object().unwrap();
        assert_eq!(norms.len(), wanted.len());
        for (name, norm) in norms {
            let wanted = wanted[&name].as_f64().unwrap();
            assert!((norm / wanted - 1.0).abs() < 1e-4, "{name}: {norm} against {wanted}, shared {share}");
        }
        let global = trl["grad_norm"].as_f64().unwrap();
        assert!((grads.global_norm().unwrap() / global - 1.0).abs() < 1e-4);
    }
}

/// Chosen and rejected of each pair, side by side.
fn pack_pairs(pairs: &Value, share: bool) -> Packed {
    let mut packed = Packed::default();
    for pair in pairs.as_array().unwrap() {
        let prompt = ids(&pair["prompt_ids"]);
        let whole = |side: &str| sequence(&[prompt.clone(), ids(&pair[side])].concat(), prompt.len());
        let (chosen, rejected) = (whole("chosen_ids"), whole("rejected_ids"));
        if share {
            packed.push_group(&[&chosen, &rejected]);
        } else {
            packed.push_group(&[&chosen]);
            packed.push_group(&[&rejected]);
        }
    }
    packed
}
