//! The nonlinearity of a feed-forward block.

use candle_core::Tensor;

use super::gpu::{Gpu, Kernel, Source, args, int, is_bf16, vector};
use crate::base::error::Result;
use crate::kernels::activation::Activation;

pub static SOURCE: Source = Source { name: "activation", parts: &[include_str!("activation.cu")] };

const ALL: [Activation; 4] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu];
const THREADS: usize = 256;

fn kernel(function: &'static str, bf16: bool, activation: Activation, gated: bool, vec: usize) -> Kernel {
    let act = ALL.iter().position(|a| *a == activation).unwrap_or(0);
    Kernel::new(&SOURCE, function, bf16).with("ACT", act).with("GATED", gated.into()).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> impl Iterator<Item = Kernel> {
    let vecs: &[usize] = if bf16 { &[1, 2, 4, 8] } else { &[1, 2, 4] };
    let both = ALL.into_iter().flat_map(|a| [(a, false), (a, true)]);
    both.flat_map(move |(a, gated)| {
        vecs.iter().map(move |&vec| kernel("activation_forward", bf16, a, gated, vec))
    })
}

pub fn forward(gpu: &dyn Gpu, x: &Tensor, activation: Activation, gated: bool) -> Result<Tensor> {
    let (t, n) = x.dims2()?;
    let f = if gated { n / 2 } else { n };
    let y = gpu.empty((t, f).into(), x.dtype())?;
    let vec = vector(x.dtype(), &[f], &[x, &y])?;
    let count = t * f / vec;
    if count > 0 {
        let kernel = kernel("activation_forward", is_bf16(x), activation, gated, vec);
        gpu.launch(&kernel, (count.div_ceil(THREADS), 1), THREADS, &args![x, &y, int(count)?, int(f)?])?;
    }
    Ok(y)
}

/// (y, dx) in the memory of dy and x.
pub fn backward(
    gpu: &dyn Gpu,
    dy: Tensor,
    x: Tensor,
    activation: Activation,
    gated: bool,
) -> Result<(Tensor, Tensor)> {
    let (t, f) = dy.dims2()?;
    let vec = vector(x.dtype(), &[f], &[&x, &dy])?;
    let count = t * f / vec;
    if count > 0 {
        let kernel = kernel("activation_backward", is_bf16(&x), activation, gated, vec);
        gpu.launch(&kernel, (count.div_ceil(THREADS), 1), THREADS, &args![&dy, &x, int(count)?, int(f)?])?;
    }
    Ok((dy, x))
}
