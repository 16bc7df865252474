//! On an NVIDIA GPU: `tests/gpu/run.sh`, or `cargo test --release --features cuda --test gpu -- --ignored`.
//! Every kernel against the CPU in f64, with poisoned memory; a whole trajectory; speed at the shape of a 1 B Llama.
#![cfg(feature = "cuda")]

mod engine;
mod gpu_cases;
mod trajectory;

use candle_core::{DType, Device};
use engine::largest_difference;
use gpu_cases::Numbers;
use kto_eval::kernels::cuda::device::{self, Cuda};

fn card() -> Device {
    device::open(0).expect("these tests need an NVIDIA GPU")
}

fn on_both(case: impl Fn(&Numbers)) {
    device::poison(true);
    let device = card();
    let gpu = Cuda::new(device.as_cuda_device().unwrap());
    for dtype in [DType::F32, DType::BF16] {
        case(&Numbers { dtype, gpu: &gpu });
    }
}

#[test]
#[ignore = "needs a GPU"]
fn norms() {
    on_both(gpu_cases::norms);
}

#[test]
#[ignore = "needs a GPU"]
fn activations() {
    on_both(gpu_cases::activations);
}

#[test]
#[ignore = "needs a GPU"]
fn rotations() {
    on_both(gpu_cases::rotations);
}

#[test]
#[ignore = "needs a GPU"]
fn rows_of_a_table() {
    on_both(gpu_cases::rows_of_a_table);
}

#[test]
#[ignore = "needs a GPU"]
fn linear_maps_and_sums() {
    on_both(gpu_cases::linear_maps_and_sums);
}

#[test]
#[ignore = "needs a GPU"]
fn low_rank_paths() {
    on_both(gpu_cases::low_rank_paths);
}

#[test]
#[ignore = "needs a GPU"]
fn log_probs() {
    on_both(gpu_cases::log_probs);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_over_trees() {
    on_both(gpu_cases::attention_over_trees);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_of_wide_heads() {
    on_both(gpu_cases::attention_of_wide_heads);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_with_windows_and_softcaps() {
    on_both(gpu_cases::attention_with_windows_and_softcaps);
}

#[test]
#[ignore = "needs a GPU"]
fn cached_attention() {
    on_both(gpu_cases::cached_attention);
}

#[test]
#[ignore = "needs a GPU"]
fn adamw() {
    on_both(gpu_cases::adamw);
}

#[test]
#[ignore = "needs a GPU"]
fn thirty_steps_are_those_of_the_cpu() {
    device::poison(true);
    let wanted = trajectory::trained(DType::F32, 30, &Device::Cpu);
    let off = largest_difference(&trajectory::trained(DType::F32, 30, &card()), &wanted);
    assert!(off < 1e-4, "f32: {off}");
    let off = largest_difference(&trajectory::trained(DType::BF16, 30, &card()), &wanted);
    assert!(off < 0.03, "mixed precision: {off}");
}

#[test]
#[ignore = "needs a GPU"]
fn the_same_run_gives_the_same_bits() {
    let run = || trajectory::trained(DType::BF16, 10, &card());
    assert_eq!(run(), run());
}
