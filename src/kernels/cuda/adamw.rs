//! AdamW in one pass over memory.

use candle_core::{DType, Tensor};

use super::gpu::{Gpu, Kernel, Source, args, common_vector};
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

fn kernel(vec: usize) -> Kernel {
    Kernel::new(&SOURCE, "adamw_step", false).with("VEC", vec)
}

pub(super) fn variants() -> [Kernel; 3] {
    [1, 2, 4].map(kernel)
}

/// Elements at a time.
fn width(wide: &[&Tensor], copy: Option<&Tensor>) -> Result<usize> {
    let all: Vec<&Tensor> = wide.iter().copied().chain(copy).collect();
    common_vector(&[wide[0].elem_count()], &all)
}

/// Loads what [`step`] launches; gradients lie as `p`, `m` and `v` do.
pub fn prepare(gpu: &dyn Gpu, [p, m, v]: [&Tensor; 3], copy: Option<&Tensor>) -> Result<()> {
    gpu.prepare(&kernel(width(&[p, m, v], copy)?))
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
    let vec = width(&[p, m, v, gradient], copy)?;
    let count = n / vec;
    let given = args![
        p,
        m,
        v,
        gradient,
        copy,
        count as i64,
        u.keep,
        u.beta1,
        u.beta2,
        u.epsilon,
        u.step_size,
        u.correction,
        u.scale
    ];
    gpu.launch(&kernel(vec), (count.div_ceil(THREADS).clamp(1, BLOCKS), 1), THREADS, &given)
}
