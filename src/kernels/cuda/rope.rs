//! Rotary position embedding, in place.

use candle_core::Tensor;

use super::gpu::{Gpu, Kernel, Source, args, common_vector, int, is_bf16, threads_for};
use crate::base::error::Result;
use crate::kernels::rope::Angles;

pub static SOURCE: Source = Source { name: "rope", parts: &[include_str!("rope.cu")] };

fn kernel(bf16: bool, vec: usize) -> Kernel {
    Kernel::new(&SOURCE, "rope_turn", bf16).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> [Kernel; 3] {
    [1, 2, 4].map(|vec| kernel(bf16, vec))
}

pub fn turn(gpu: &dyn Gpu, x: &Tensor, angles: &Angles, heads: usize, d: usize, sign: f64) -> Result<()> {
    let ((t, n), (_, half)) = (x.dims2()?, angles.cos.dims2()?);
    if t * heads * half == 0 {
        return Ok(());
    }
    let given = args![x, &angles.cos, &angles.sin, int(n)?, int(heads)?, int(d)?, int(half)?, sign as f32];
    let vec = common_vector(&[n, d, half], &[x, &angles.cos, &angles.sin])?;
    gpu.launch(&kernel(is_bf16(x), vec), (t, 1), threads_for(heads * half / vec), &given)
}
