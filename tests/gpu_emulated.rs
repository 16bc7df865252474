//! The GPU's kernels without a GPU: their sources compiled by the machine's C++ compiler and run thread by thread
//! (`emulation/`), through the launchers that CUDA uses, against the CPU's kernels in f64. Memory that kernels write
//! begins as NaN, and nothing around it may change. What this does not hold: cuBLAS, the driver, NVRTC (see
//! `gpu_compile.rs`), and the tensor cores' one instruction, which stands in the shim as PTX documents it.

mod emulation;
mod gpu_cases;

use candle_core::DType;
use emulation::Emulator;
use gpu_cases::Numbers;
use kto_eval::kernels::cuda::Emulation;
use std::rc::Rc;

/// Runs `case` on the emulated GPU in each of its dtypes.
fn on_both(case: impl Fn(&Numbers)) {
    let Some(emulator) = Emulator::new() else {
        eprintln!("skipped: no C++ compiler (c++, or CXX) to emulate a GPU with");
        return;
    };
    let emulator = Rc::new(emulator);
    for dtype in [DType::F32, DType::BF16] {
        let _emulation = Emulation::begin(emulator.clone());
        case(&Numbers { dtype, gpu: &*emulator });
        emulator.check_zones();
    }
    assert!(!emulator.launched.borrow().is_empty(), "no kernel ran");
}

#[test]
fn norms() {
    on_both(gpu_cases::norms);
}

#[test]
fn activations() {
    on_both(gpu_cases::activations);
}

#[test]
fn rotations() {
    on_both(gpu_cases::rotations);
}

#[test]
fn rows_of_a_table() {
    on_both(gpu_cases::rows_of_a_table);
}

#[test]
fn linear_maps_and_sums() {
    on_both(gpu_cases::linear_maps_and_sums);
}

#[test]
fn low_rank_paths() {
    on_both(gpu_cases::low_rank_paths);
}

#[test]
fn dropout() {
    on_both(gpu_cases::dropout);
}

#[test]
fn log_probs() {
    on_both(gpu_cases::log_probs);
}

#[test]
fn attention_over_trees() {
    on_both(gpu_cases::attention_over_trees);
}

#[test]
fn attention_of_width_64() {
    on_both(gpu_cases::attention_of_width_64);
}

#[test]
fn attention_of_widths_that_pack_less() {
    on_both(gpu_cases::attention_of_widths_that_pack_less);
}

#[test]
fn attention_of_width_80() {
    on_both(gpu_cases::attention_of_width_80);
}

#[test]
fn attention_of_width_128() {
    on_both(gpu_cases::attention_of_width_128);
}

#[test]
fn attention_of_width_256() {
    on_both(gpu_cases::attention_of_width_256);
}

#[test]
fn attention_with_windows_and_softcaps() {
    on_both(gpu_cases::attention_with_windows_and_softcaps);
}

#[test]
fn cached_attention() {
    on_both(gpu_cases::cached_attention);
}

#[test]
fn drawn_tokens() {
    on_both(gpu_cases::drawn_tokens);
}

#[test]
fn adamw() {
    on_both(gpu_cases::adamw);
}
