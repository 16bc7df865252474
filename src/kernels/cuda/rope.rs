//! Rotary position embedding, in place.

use candle_core::Tensor;

use super::gpu::{Gpu, Kernel, Source, args, int, is_bf16, threads_for};
use crate::base::error::Result;
use crate::kernels::rope::Angles;

pub static SOURCE: Source = Source { name: "rope", parts: &[include_str!("rope.cu")] };

pub fn turn(gpu: &dyn Gpu, x: &Tensor, angles: &Angles, heads: usize, d: usize, sign: f64) -> Result<()> {
    let ((t, n), (_, half)) = (x.dims2()?, angles.cos.dims2()?);
    if t * heads * half == 0 {
        return Ok(());
    }
    let given = args![x, &angles.cos, &angles.sin, int(n)?, int(heads)?, int(d)?, int(half)?, sign as f32];
    let kernel = Kernel::new(&SOURCE, "rope_turn", is_bf16(x));
    gpu.launch(&kernel, (t, 1), threads_for(heads * half), &given)
}
