//! Attention over packed trees, backward.

use candle_core::{DType, Tensor};

use super::attention::{THREADS, kernel, shape_args};
use super::gpu::{Gpu, Source, args, int, is_bf16, vector};
use super::segments;
use crate::base::error::Result;
use crate::kernels::attention::{Shape, Tree};

pub(super) static SOURCE: Source = Source {
    name: "attention_backward",
    parts: &[include_str!("mma.cuh"), include_str!("attention.cuh"), include_str!("attention_backward.cu")],
};

/// dout (t, h·d), with qkv, output and log Σ exp of the forward pass → dqkv (t, (h + 2k)·d).
pub fn backward(
    gpu: &dyn Gpu,
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    trees: &[Tree],
    shape: &Shape,
) -> Result<Tensor> {
    let (t, width) = qkv.dims2()?;
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let dqkv = gpu.empty((t, width).into(), qkv.dtype())?;
    let queries = segments::query_tiles(trees)?;
    if queries.len == 0 {
        return Ok(dqkv);
    }
    let vec = vector(qkv.dtype(), &[d], &[qkv, dout])?;
    let kernel = |function| kernel(&SOURCE, function, is_bf16(qkv), shape, vec);
    let delta = gpu.empty((heads, t).into(), DType::F32)?;
    let blocks = (t * heads).div_ceil(THREADS / 32);
    let given = args![out, dout, &delta, int(t)?, int(heads)?];
    gpu.launch(&kernel("attention_delta"), (blocks, 1), THREADS, &given)?;

    let tiles = gpu.upload(&queries.numbers)?;
    let mut given = args![qkv, dout, lse, &delta, &tiles, &dqkv];
    given.extend(shape_args(t, shape)?);
    gpu.launch(&kernel("attention_queries"), (queries.len, heads), THREADS, &given)?;

    let (keys, viewers) = segments::key_tiles(trees)?;
    let (tiles, seen_by) = (gpu.upload(&keys.numbers)?, gpu.upload(&viewers.numbers)?);
    let mut given = args![qkv, dout, lse, &delta, &tiles, &seen_by, &dqkv];
    given.extend(shape_args(t, shape)?);
    gpu.launch(&kernel("attention_keys"), (keys.len, kv_heads), THREADS, &given)?;
    Ok(dqkv)
}
