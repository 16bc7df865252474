//! AdamW in one pass over memory.

use candle_core::{DType, Tensor};

use super::gpu::{Gpu, Kernel, Source, args};
use crate::base::error::{Result, ensure};

pub static SOURCE: Source = Source { name: "adamw", parts: &[include_str!("adamw.cu")] };

const THREADS: usize = 256;
/// Blocks that keep a large card busy.
const BLOCKS: usize = 2048;

/// The constants of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// 1 − η λ
    pub keep: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// η / (1 − β₁ᵗ)
    pub step_size: f32,
    /// √(1 − β₂ᵗ)
    pub correction: f32,
    /// Gradients are multiplied by this first (clipping).
    pub scale: f32,
}

fn kernel(copied: bool) -> Kernel {
    Kernel::new(&SOURCE, "adamw_step", copied)
}

/// Loads what [`step`] launches, with or without a copy.
pub fn prepare(gpu: &dyn Gpu, copied: bool) -> Result<()> {
    gpu.prepare(&kernel(copied))
}

/// Changes `p`, `m` and `v` (f32) in place by the gradient (f32), and `copy` (bf16) to `p` rounded.
pub fn step(
    gpu: &dyn Gpu,
    [p, m, v, gradient]: [&Tensor; 4],
    copy: Option<&Tensor>,
    u: Update,
) -> Result<()> {
    let n = p.elem_count();
    let wide = [p, m, v, gradient].iter().all(|x| x.dtype() == DType::F32 && x.elem_count() == n);
    let narrow = copy.is_none_or(|c| c.dtype() == DType::BF16 && c.elem_count() == n);
    ensure!(wide && narrow, "AdamW on the GPU: moments, gradient and master weights are f32 of one shape");
    let given = args![
        p,
        m,
        v,
        gradient,
        copy,
        n as i64,
        u.keep,
        u.beta1,
        u.beta2,
        u.epsilon,
        u.step_size,
        u.correction,
        u.scale
    ];
    gpu.launch(&kernel(copy.is_some()), (n.div_ceil(THREADS).clamp(1, BLOCKS), 1), THREADS, &given)
}
