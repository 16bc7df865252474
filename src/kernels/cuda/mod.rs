//! The fused operations on NVIDIA GPUs: kernels in `.cu` files beside their launchers, compiled when first used.
//!
//! A launcher speaks to [`Gpu`], not to CUDA: with `--features cuda` that is NVRTC, the driver and cuBLAS
//! ([`device`]); in tests it is the same kernel sources compiled by the machine's C++ compiler and run thread by
//! thread (`tests/gpu_emulated.rs`), so that kernels, grids and arguments are held against the CPU's without a GPU.
//!
//! Elements are bf16 or f32; sums, statistics, log-probs and gradients of weights are f32 for both. Nothing is added
//! by atomics: the same batch on the same card gives the same bits.

pub mod activation;
pub mod adamw;
pub mod attention;
mod backward;
pub mod cached;
#[cfg(feature = "cuda")]
pub mod device;
pub mod gpu;
pub mod head;
pub mod linear;
pub mod low_rank;
pub mod norm;
pub mod rope;
pub mod rows;
pub mod sample;
mod segments;
pub mod sums;

pub use gpu::{Arg, Args, Emulation, Gpu, Kernel, Matrix, Source, is_emulated, of};

/// Every source with each set of definitions that changes what is compiled; head widths stand for their class.
pub fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for bf16 in [false, true] {
        all.extend(activation::variants(bf16));
        all.extend(attention::variants(bf16));
        all.extend(norm::variants(bf16));
        all.extend(head::variants(bf16));
        all.extend(rows::variants(bf16));
        all.extend(sums::variants(bf16));
        all.extend(rope::variants(bf16));
        all.push(low_rank::kernel(bf16));
    }
    all.extend(adamw::variants());
    all.extend(sample::variants());
    all
}
