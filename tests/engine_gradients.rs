//! Whole decoders of every family: gradients by finite differences in f64, packing, shared prompts,
//! checkpointing, the KV cache, and checkpoints out and in.

mod engine;

use candle_core::{DType, Device, Tensor};
use engine::{FAMILIES, assert_gradients, flat, largest_difference, numbers, sequence, tiny};
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};
use rand_chacha::rand_core::Rng;
use serde_json::Value;

/// A model whose norms and biases are random too, so that every gradient can show.
fn decoder(family: &str) -> Decoder {
    let mut decoder = Decoder::random(tiny(family), 7, DType::F64, &Device::Cpu).unwrap();
    for (i, param) in decoder.params_mut().iter_mut().enumerate() {
        let noise = numbers(&format!("{family} {i}"), param.tensor.elem_count());
        let noise = Tensor::from_vec(noise, param.tensor.shape(), &Device::Cpu).unwrap();
        param.tensor = (&param.tensor + (noise * 0.3).unwrap()).unwrap();
    }
    decoder
}

fn tokens(name: &str, count: usize) -> Vec<u32> {
    let mut rng = seed::rng(13, name);
    (0..count).map(|_| rng.next_u32() % 29).collect()
}

/// Two groups that share a prompt and one sequence on its own.
fn groups() -> Vec<Vec<Sequence>> {
    let group = |name: &str, prompt: usize, completions: &[usize]| {
        let head = tokens(name, prompt);
        let whole = |n: &usize| sequence(&[head.clone(), tokens(&format!("{name}{n}"), *n)].concat(), prompt);
        completions.iter().map(whole).collect::<Vec<_>>()
    };
    vec![group("a", 5, &[4, 7]), group("b", 3, &[6]), group("c", 6, &[1, 3, 2])]
}

fn shared_prompts() -> Packed {
    let mut packed = Packed::default();
    for group in groups() {
        packed.push_group(&group.iter().collect::<Vec<_>>());
    }
    packed
}

fn gradients(decoder: &Decoder, packed: &Packed, dlogps: &[f64]) -> Gradients {
    let mut grads = Gradients::zeros(decoder).unwrap();
    let (_, tape) = decoder.forward(packed).unwrap();
    decoder.backward(tape, dlogps, &mut grads).unwrap();
    grads
}

#[test]
fn gradients_of_every_family_are_those_of_finite_differences() {
    let packed = shared_prompts();
    let dlogps = numbers("dlogps", packed.reads.len());
    for family in FAMILIES {
        let decoder = decoder(family);
        let grads = gradients(&decoder, &packed, &dlogps);
        let loss =
            |d: &Decoder| d.logps(&packed).unwrap().iter().zip(&dlogps).map(|(l, w)| l * w).sum::<f64>();
        // Key biases move all scores of a query alike (no rotation) or nearly so; everything else must show.
        assert_gradients(&decoder, &grads, &loss, family);
    }
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    let sequences: Vec<Sequence> = groups().concat();
    for family in FAMILIES {
        let decoder = decoder(family);
        let together = decoder.logps(&Packed::of(&sequences)).unwrap();
        let alone: Vec<f64> =
            sequences.iter().flat_map(|s| decoder.logps(&Packed::of([s])).unwrap()).collect();
        assert!(largest_difference(&together, &alone) < 1e-12, "{family}");
    }
}

#[test]
fn a_shared_prompt_changes_neither_log_probs_nor_gradients() {
    let sequences: Vec<Sequence> = groups().concat();
    let (shared, separate) = (shared_prompts(), Packed::of(&sequences));
    assert!(shared.ids.len() < separate.ids.len());
    let dlogps = numbers("dlogps", shared.reads.len());
    for family in FAMILIES {
        let decoder = decoder(family);
        let logps = [&shared, &separate].map(|p| decoder.logps(p).unwrap());
        assert!(largest_difference(&logps[0], &logps[1]) < 1e-12, "{family}");
        let [a, b] = [&shared, &separate].map(|p| gradients(&decoder, p, &dlogps));
        for (x, y) in a.tensors().iter().zip(b.tensors()) {
            assert!(largest_difference(&flat(x), &flat(y)) < 1e-11, "{family}");
        }
    }
}

#[test]
fn checkpointing_activations_changes_no_bit() {
    let packed = shared_prompts();
    let dlogps = numbers("dlogps", packed.reads.len());
    for family in FAMILIES {
        let mut decoder = decoder(family);
        let kept = gradients(&decoder, &packed, &dlogps);
        decoder.set_checkpointing(true);
        let again = gradients(&decoder, &packed, &dlogps);
        for (x, y) in kept.tensors().iter().zip(again.tensors()) {
            assert_eq!(flat(x), flat(y), "{family}");
        }
    }
}

#[test]
fn gradients_accumulate_and_go_back_to_zero() {
    let packed = shared_prompts();
    let dlogps = numbers("dlogps", packed.reads.len());
    let decoder = decoder("llama");
    let once = gradients(&decoder, &packed, &dlogps);
    let mut twice = gradients(&decoder, &packed, &dlogps);
    decoder.backward(decoder.forward(&packed).unwrap().1, &dlogps, &mut twice).unwrap();
    assert!((twice.global_norm().unwrap() / once.global_norm().unwrap() - 2.0).abs() < 1e-12);
    twice.zero_().unwrap();
    assert_eq!(twice.global_norm().unwrap(), 0.0);
    let short = decoder.backward(decoder.forward(&packed).unwrap().1, &dlogps[1..], &mut twice).unwrap_err();
    assert!(short.to_string().contains("gradients for"), "{short}");
}

#[test]
fn a_pass_after_a_restart_has_the_bits_of_one_from_zero() {
    let packed = shared_prompts();
    let dlogps = numbers("dlogps", packed.reads.len());
    for family in FAMILIES {
        let decoder = decoder(family);
        let wanted = gradients(&decoder, &packed, &dlogps);
        let mut grads = gradients(&decoder, &packed, &dlogps);
        grads.scale_(f64::NAN).unwrap();
        grads.restart_().unwrap();
        let (_, tape) = decoder.forward(&packed).unwrap();
        decoder.backward(tape, &dlogps, &mut grads).unwrap();
        for (i, (found, wanted)) in grads.tensors().iter().zip(wanted.tensors()).enumerate() {
            assert_eq!(flat(found), flat(wanted), "{family} {i}");
        }
        // The second pass adds.
        let (_, tape) = decoder.forward(&packed).unwrap();
        decoder.backward(tape, &dlogps, &mut grads).unwrap();
        for (found, wanted) in grads.tensors().iter().zip(wanted.tensors()) {
            let twice: Vec<f64> = flat(wanted).iter().map(|g| 2.0 * g).collect();
            assert!(largest_difference(&flat(found), &twice) < 1e-12, "{family}");
        }
    }
}

#[test]
fn steps_through_the_cache_are_the_packed_forward() {
    for family in FAMILIES {
        let decoder = decoder(family);
        let mut cache = decoder.new_cache(3, 16).unwrap();
        let (a, b) = (tokens("x", 11), tokens("y", 9));
        // Slots 2 and 0 in pieces of different sizes, then both together one at a time.
        decoder.step(&mut cache, &[(2, &a[..3])]).unwrap();
        decoder.step(&mut cache, &[(2, &a[3..7]), (0, &b[..5])]).unwrap();
        for i in 0..4 {
            let logits = decoder.step(&mut cache, &[(0, &b[5 + i..6 + i]), (2, &a[7 + i..8 + i])]).unwrap();
            for (row, prefix) in [&b[..6 + i], &a[..8 + i]].into_iter().enumerate() {
                // log-softmax of the cache's logits against the packed log-prob of every possible next token
                let logits: Vec<f64> = logits
                    .get(row)
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
                    .iter()
                    .map(|x| f64::from(*x))
                    .collect();
                let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
                for (id, logit) in logits.iter().enumerate() {
                    let next = sequence(&[prefix, &[id as u32]].concat(), prefix.len());
                    let wanted = decoder.logps(&Packed::of([&next])).unwrap()[0];
                    assert!((logit - total - wanted).abs() < 1e-4, "{family}");
                }
            }
        }
        assert_eq!((cache.len(0), cache.len(1), cache.len(2)), (9, 0, 11));
        assert!(decoder.step(&mut cache, &[(0, &a)]).is_err(), "beyond the capacity");
        cache.clear(0);
        assert_eq!(cache.len(0), 0);
        assert!(decoder.step(&mut cache, &[(3, &a[..1])]).is_err(), "no such slot");
    }
}

#[test]
fn a_checkpoint_in_shards_is_the_same_model_and_leaves_no_older_weights() {
    let packed = shared_prompts();
    let files = |dir: &std::path::Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for family in FAMILIES {
        let decoder = decoder(family);
        let dir = tempfile::tempdir().unwrap();
        decoder.save(dir.path()).unwrap();
        assert_eq!(files(dir.path()), ["config.json", "model.safetensors"]);
        decoder.save_in_shards(dir.path(), 6000).unwrap();
        let names = files(dir.path());
        let last = format!("model-{0:05}-of-{0:05}.safetensors", names.len() - 2);
        assert!(names.len() > 4 && names.contains(&last), "{family}: {names:?}");
        assert!(!names.contains(&"model.safetensors".to_owned()), "the whole file would be read first");
        for name in names.iter().filter(|n| n.contains("-of-")) {
            let tensors = candle_core::safetensors::load(dir.path().join(name), &Device::Cpu).unwrap();
            let bytes: usize = tensors.values().map(|t| t.elem_count() * 8).sum();
            assert!(bytes <= 6000 || tensors.len() == 1, "{family} {name}: {bytes}");
        }
        let index: Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("model.safetensors.index.json")).unwrap())
                .unwrap();
        assert_eq!(index["metadata"]["total_size"].as_u64().unwrap(), 8 * decoder.num_params() as u64);
        let again = Decoder::load(dir.path(), DType::F64, &Device::Cpu).unwrap();
        assert_eq!(decoder.logps(&packed).unwrap(), again.logps(&packed).unwrap(), "{family}");
        decoder.save(dir.path()).unwrap();
        assert_eq!(files(dir.path()), ["config.json", "model.safetensors"]);
    }
}

#[test]
fn a_saved_checkpoint_is_the_same_model() {
    let packed = shared_prompts();
    for family in FAMILIES {
        let decoder = decoder(family);
        let dir = tempfile::tempdir().unwrap();
        decoder.save(dir.path()).unwrap();
        let again = Decoder::load(dir.path(), DType::F64, &Device::Cpu).unwrap();
        assert_eq!(decoder.logps(&packed).unwrap(), again.logps(&packed).unwrap(), "{family}");
        let names = |d: &Decoder| d.params().iter().flat_map(|p| p.pieces.clone()).collect::<Vec<_>>();
        assert_eq!(names(&decoder), names(&again));
    }
}

/// What lets a reference log-prob be cached whatever it was computed beside.
#[test]
fn a_log_prob_has_the_same_bits_alone_packed_and_after_a_shared_prompt() {
    let sequences: Vec<Sequence> = groups().concat();
    let mut decoders: Vec<(String, Decoder)> =
        FAMILIES.iter().map(|f| (f.to_string(), single(&decoder(f)))).collect();
    for (hidden, vocab) in [(160, 300), (256, 4096)] {
        let size = Size { vocab, hidden, layers: 2, heads: 4, kv_heads: 2, intermediate: 688, context: 64 };
        let config = DecoderConfig::llama(size).unwrap();
        let wide = Decoder::random(config, 3, DType::F32, &Device::Cpu).unwrap();
        decoders.push((format!("llama of width {hidden}"), wide));
    }
    for (name, decoder) in &decoders {
        let together = decoder.logps(&Packed::of(&sequences)).unwrap();
        let shared = decoder.logps(&shared_prompts()).unwrap();
        let alone: Vec<f64> =
            sequences.iter().flat_map(|s| decoder.logps(&Packed::of([s])).unwrap()).collect();
        assert_eq!(together, alone, "{name}: packed against alone");
        assert_eq!(shared, alone, "{name}: with shared prompts against alone");
    }
}

/// The same model in f32.
fn single(decoder: &Decoder) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    decoder.save(dir.path()).unwrap();
    Decoder::load(dir.path(), DType::F32, &Device::Cpu).unwrap()
}
