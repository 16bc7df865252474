//! Attention over packed trees, forward.

use candle_core::{DType, Tensor};

use super::gpu::{Args, Gpu, Kernel, Source, args, int, is_bf16, vector};
use super::segments;
use crate::base::error::Result;
use crate::kernels::attention::{Shape, Tree};

pub use super::backward::backward;

pub static SOURCE: Source = Source {
    name: "attention",
    parts: &[include_str!("mma.cuh"), include_str!("attention.cuh"), include_str!("attention.cu")],
};

/// Threads of a block: four warps of sixteen rows.
pub(super) const THREADS: usize = 128;

/// Heads of an even width up to 256; others go through the plain version.
pub fn applies(shape: &Shape) -> bool {
    shape.head_dim.is_multiple_of(2) && shape.head_dim <= 256
}

pub(super) fn kernel(
    source: &'static Source,
    function: &'static str,
    bf16: bool,
    d: usize,
    vec: usize,
) -> Kernel {
    let padded = d.next_multiple_of(16);
    // Two tiles of rows in 48 KiB of shared memory.
    let (keys, queries) = match (bf16, padded) {
        (true, ..=128) | (false, ..=64) => (64, 32),
        (true, _) | (false, ..=128) => (32, 32),
        (false, _) => (16, 16),
    };
    let kernel = Kernel::new(source, function, bf16);
    kernel.with("D", d).with("DP", padded).with("KEYS", keys).with("QUERIES", queries).with("VEC", vec)
}

pub(super) fn variants(bf16: bool) -> Vec<Kernel> {
    let vec = if bf16 { 8 } else { 4 };
    let widths = [(10, 2), (16, vec), (64, vec), (80, vec), (128, vec), (256, vec)];
    let of = |(d, vec)| {
        let attention = [
            kernel(&SOURCE, "attention_forward", bf16, d, vec),
            kernel(&super::backward::SOURCE, "attention_keys", bf16, d, vec),
        ];
        attention.into_iter().chain([super::cached::kernel("cached_attend", bf16, d)])
    };
    widths.into_iter().flat_map(of).collect()
}

/// t, width, heads, kv_heads, scale, cap, window
pub(super) fn shape_args<'a>(t: usize, shape: &Shape) -> Result<Args<'a>> {
    let window = shape.window.map_or(0, |w| w.min(i32::MAX as usize));
    let (cap, scale) = (shape.softcap.map_or(0.0, |c| c as f32), shape.scale as f32);
    let Shape { heads, kv_heads, .. } = *shape;
    Ok(args![int(t)?, int(shape.width())?, int(heads)?, int(kv_heads)?, scale, cap, int(window)?])
}

/// qkv (t, (h + 2k)·d) → output (t, h·d) and log Σ exp (h, t, f32).
pub fn forward(gpu: &dyn Gpu, qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<(Tensor, Tensor)> {
    let (t, _) = qkv.dims2()?;
    let Shape { heads, head_dim: d, .. } = *shape;
    let out = gpu.empty((t, heads * d).into(), qkv.dtype())?;
    let lse = gpu.empty((heads, t).into(), DType::F32)?;
    let tiles = segments::query_tiles(trees)?;
    if tiles.len > 0 {
        let vec = vector(qkv.dtype(), &[d], &[qkv])?;
        let numbers = gpu.upload(&tiles.numbers)?;
        let mut given = args![qkv, &numbers, &out, &lse];
        given.extend(shape_args(t, shape)?);
        let kernel = kernel(&SOURCE, "attention_forward", is_bf16(qkv), d, vec);
        gpu.launch(&kernel, (tiles.len, heads), THREADS, &given)?;
    }
    Ok((out, lse))
}
