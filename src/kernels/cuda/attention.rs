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
    shape: &Shape,
    vec: usize,
) -> Kernel {
    let d = shape.head_dim;
    let padded = d.next_multiple_of(16);
    // Two tiles of rows in 48 KiB of shared memory.
    let (keys, queries) = match (bf16, padded) {
        (true, ..=128) | (false, ..=64) => (64, 32),
        (true, _) | (false, ..=128) => (32, 32),
        (false, _) => (16, 16),
    };
    let kernel = Kernel::new(source, function, bf16);
    let kernel = kernel.with("D", d).with("DP", padded).with("KEYS", keys).with("QUERIES", queries);
    kernel.with("VEC", vec).with("CAP", shape.softcap.is_some().into())
}

/// Head widths with their elements at a time: every class of tile sizes, whole and odd numbers of products' depths,
/// and widths that allow less than 16 bytes at a time.
const WIDTHS: [(usize, usize); 10] =
    [(10, 2), (16, 8), (20, 4), (40, 8), (64, 8), (80, 8), (96, 8), (112, 8), (128, 8), (256, 8)];

pub(super) fn variants(bf16: bool) -> Vec<Kernel> {
    let mut all = Vec::new();
    for (head_dim, vec) in WIDTHS {
        let vec = if bf16 { vec } else { vec.min(4) };
        for softcap in [None, Some(1.0)] {
            let shape = Shape { heads: 1, kv_heads: 1, head_dim, scale: 1.0, window: None, softcap };
            all.push(kernel(&SOURCE, "attention_forward", bf16, &shape, vec));
            all.push(kernel(&super::backward::SOURCE, "attention_keys", bf16, &shape, vec));
        }
        all.push(super::cached::kernel("cached_attend", bf16, head_dim));
    }
    all
}

/// t, width, heads, kv_heads, scale, cap, window
pub(super) fn shape_args<'a>(t: usize, shape: &Shape) -> Result<Args<'a>> {
    // Beyond every position, and sums of it with positions stay in range.
    let window = shape.window.map_or(0, |w| w.min(1 << 30));
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
        let kernel = kernel(&SOURCE, "attention_forward", is_bf16(qkv), shape, vec);
        gpu.launch(&kernel, (tiles.len, heads), THREADS, &given)?;
    }
    Ok((out, lse))
}
