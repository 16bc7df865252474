//! Whole decoders on the emulated GPU (see `gpu_emulated.rs`): gradients of every family against the CPU in f64,
//! generation, and thirty steps of AdamW in f32 and in mixed precision against thirty on the CPU.

mod emulation;
mod engine;
mod trajectory;

use candle_core::{DType, Device, Tensor};
use emulation::Emulator;
use engine::{largest_difference, tiny};
use kto_eval::kernels::cuda::Emulation;
use kto_eval::model::{Decoder, DecoderConfig, Dropout, Gradients, Packed};
use kto_eval::plan::{LoraSpec, Method, TrainSpec};
use kto_eval::train::{AdamW, Reads, Unit, warm_up};
use std::rc::Rc;

fn emulator() -> Option<Rc<Emulator>> {
    let emulator = Emulator::new().map(Rc::new);
    if emulator.is_none() {
        eprintln!("skipped: no C++ compiler (c++, or CXX) to emulate a GPU with");
    }
    emulator
}

/// The emulated GPU did the work, not the CPU beside it.
fn ran(emulator: &Emulator, kernels: &[&str]) {
    let launched = emulator.launched.borrow();
    for kernel in kernels {
        assert!(launched.contains_key(*kernel), "{kernel} did not run: {launched:?}");
    }
}

fn gradients(decoder: &Decoder, packed: &Packed) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut grads = Gradients::zeros(decoder).unwrap();
    let (logps, tape) = decoder.forward(packed).unwrap();
    let dlogps: Vec<f64> = (0..logps.len()).map(|i| 0.1 * (i % 7) as f64 - 0.25).collect();
    decoder.backward(tape, &dlogps, &mut grads).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    (logps, grads.tensors().iter().map(flat).collect())
}

/// The same weights in another dtype.
fn converted(decoder: &Decoder, config: &DecoderConfig, dtype: DType) -> Decoder {
    let mut copy = Decoder::random(config.clone(), 7, dtype, &Device::Cpu).unwrap();
    for (to, from) in copy.params_mut().iter_mut().zip(decoder.params()) {
        to.tensor = from.tensor.to_dtype(dtype).unwrap();
    }
    copy
}

#[test]
fn gradients_of_every_family_are_those_of_the_cpu() {
    let Some(emulator) = emulator() else { return };
    for family in engine::FAMILIES {
        let config = tiny(family);
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 0.06)] {
            let narrow = Decoder::random(config.clone(), 7, dtype, &Device::Cpu).unwrap();
            let wide = converted(&narrow, &config, DType::F64);
            let packed = trajectory::batch(29, 3);
            let (logps64, grads64) = gradients(&wide, &packed);
            let _emulation = Emulation::begin(emulator.clone());
            emulator.launched.borrow_mut().clear();
            let (logps, grads) = gradients(&narrow, &packed);
            emulator.check_zones();
            ran(&emulator, &["attention_keys", "head_backward", "norm_backward"]);
            let off = largest_difference(&logps, &logps64);
            assert!(off < 10.0 * tolerance, "{family} {dtype:?}: log-probs off by {off}");
            for (i, (found, wanted)) in grads.iter().zip(&grads64).enumerate() {
                let off: Vec<f64> = found.iter().zip(wanted).map(|(x, y)| x - y).collect();
                let (off, size) = (length(&off), length(wanted));
                let name = &narrow.params()[i].pieces[0].name;
                assert!(off <= tolerance * (size + 0.1), "{family} {dtype:?} {name}: {off} of {size}");
            }
        }
    }
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn activation_checkpointing_changes_nothing() {
    let Some(emulator) = emulator() else { return };
    let _emulation = Emulation::begin(emulator.clone());
    let mut decoder = Decoder::random(tiny("llama"), 7, DType::F32, &Device::Cpu).unwrap();
    let packed = trajectory::batch(29, 3);
    let kept = gradients(&decoder, &packed);
    decoder.set_checkpointing(true);
    assert_eq!(kept, gradients(&decoder, &packed));
    ran(&emulator, &["attention_keys", "head_backward"]);
}

#[test]
fn tokens_one_by_one_give_the_logits_of_the_whole() {
    let Some(emulator) = emulator() else { return };
    let narrow = Decoder::random(tiny("gemma2"), 7, DType::F32, &Device::Cpu).unwrap();
    let steps: [&[(usize, &[u32])]; 3] =
        [&[(0, &[3, 5, 7, 1, 2, 9]), (1, &[4, 4])], &[(1, &[6]), (0, &[8])], &[(0, &[1])]];
    let run = || -> Vec<f64> {
        let mut cache = narrow.new_cache(2, 12).unwrap();
        let logits = |step: &&[(usize, &[u32])]| {
            narrow.step(&mut cache, step).unwrap().flatten_all().unwrap().to_dtype(DType::F64).unwrap()
        };
        steps.iter().map(logits).flat_map(|t| t.to_vec1::<f64>().unwrap()).collect()
    };
    let wanted = run();
    let _emulation = Emulation::begin(emulator.clone());
    let off = largest_difference(&run(), &wanted);
    assert!(off < 2e-5, "{off}");
    ran(&emulator, &["cached_attend"]);
}

#[test]
fn thirty_steps_are_those_of_the_cpu() {
    let Some(emulator) = emulator() else { return };
    let wanted = trajectory::trained(DType::F32, 30, &Device::Cpu);
    assert!(wanted[29] < wanted[1] - 0.3, "nothing was learned: {wanted:?}");
    let _emulation = Emulation::begin(emulator.clone());
    let off = largest_difference(&trajectory::trained(DType::F32, 30, &Device::Cpu), &wanted);
    assert!(off < 1e-4, "f32: {off}");
    let off = largest_difference(&trajectory::trained(DType::BF16, 30, &Device::Cpu), &wanted);
    assert!(off < 0.03, "mixed precision: {off}");
    emulator.check_zones();
    ran(
        &emulator,
        &["adamw_step", "attention_keys", "head_backward", "norm_backward", "rows_scatter", "sums_squares"],
    );
}

#[test]
fn a_pass_after_a_restart_has_the_bits_of_one_from_zero() {
    let Some(emulator) = emulator() else { return };
    let _emulation = Emulation::begin(emulator.clone());
    let packed = trajectory::batch(29, 3);
    for dtype in [DType::F32, DType::BF16] {
        let decoder = Decoder::random(tiny("llama"), 7, dtype, &Device::Cpu).unwrap();
        let bits = |grads: &Gradients| -> Vec<Vec<f32>> {
            grads.tensors().iter().map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let pass = |grads: &mut Gradients| {
            let (logps, tape) = decoder.forward(&packed).unwrap();
            decoder.backward(tape, &vec![0.3; logps.len()], grads).unwrap();
        };
        let mut grads = Gradients::zeros(&decoder).unwrap();
        pass(&mut grads);
        let wanted = bits(&grads);
        grads.scale_(f64::NAN).unwrap();
        emulator.launched.borrow_mut().clear();
        grads.restart_().unwrap();
        assert!(emulator.launched.borrow().is_empty(), "nothing is cleared before products write over it");
        pass(&mut grads);
        assert_eq!(bits(&grads), wanted, "{dtype:?}");
    }
}

#[test]
fn a_warm_up_loads_what_a_step_launches_and_leaves_no_trace() {
    let Some(emulator) = emulator() else { return };
    let _emulation = Emulation::begin(emulator.clone());
    let unit =
        Unit { id: "1".to_owned(), sequences: vec![engine::random_sequence(1, 4, 9, 29)], desirable: true };
    let objective = kto_eval::objective::build(&Method::Sft).unwrap();
    let lora = LoraSpec { rank: 2, dropout: 0.2, ..LoraSpec::default() };
    for adapted in [false, true] {
        let mut policy = Decoder::random(tiny("llama"), 7, DType::BF16, &Device::Cpu).unwrap();
        if adapted {
            policy = policy.with_adapter(&lora, 1).unwrap();
        }
        let mut grads = Gradients::zeros(&policy).unwrap();
        let mut optimizer = AdamW::new(&TrainSpec::default(), &policy).unwrap();
        let before = policy.weights_hash().unwrap();
        emulator.launched.borrow_mut().clear();
        let reads = Reads::of(objective.as_ref());
        warm_up(&policy, reads, std::slice::from_ref(&unit), &optimizer, &mut grads).unwrap();
        assert_eq!(grads.global_norm().unwrap(), 0.0);
        assert_eq!(policy.weights_hash().unwrap(), before);
        let loaded: Vec<&str> = emulator.launched.borrow().keys().copied().collect();

        emulator.launched.borrow_mut().clear();
        let dropout = adapted.then_some(Dropout { seed: 5, first_row: 0 });
        let (logps, tape) = policy.forward_training(&trajectory::batch(29, 3), dropout).unwrap();
        policy.backward(tape, &vec![-0.1; logps.len()], &mut grads).unwrap();
        grads.global_norm().unwrap();
        optimizer.step(&mut policy, &grads, 1e-3, 1.0).unwrap();
        ran(&emulator, &["adamw_step", "attention_keys", "sums_squares"]);
        for kernel in emulator.launched.borrow().keys() {
            assert!(loaded.contains(kernel), "{kernel} was not loaded, only {loaded:?}");
        }
    }
}
