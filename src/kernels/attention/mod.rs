//! Causal attention over packed sequences of different lengths, with grouped key/value heads
//! (Ainslie et al. 2023), sliding windows, softcapped scores (Gemma 2) and shared prompts.
//!
//! Queries go in blocks of rows: a block's scores against all keys it may see exist at one time, a t×t matrix
//! never does. Forward keeps the log Σ exp of each row; backward computes the probabilities again from it
//! (Dao et al. 2022). One task is one key/value head of one tree of segments, so no two tasks write the same
//! gradient.

use candle_core::{DType, Tensor};
use std::ops::Range;

use super::cpu::{self, dispatch};
use super::cuda;
use super::plain;
use crate::base::error::Result;

mod cached;
mod dense;
mod local;
mod packed;

pub use cached::{Cached, Slot, cached};
pub use dense::forward as plain_forward;
use packed::{backward_cpu, forward_cpu};

/// Segments that see each other: each of `branches` sees all of `root`, then itself up to its own row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub root: Range<usize>,
    pub branches: Vec<Range<usize>>,
}

/// Heads and scores. The fused projection holds h query heads, then k key heads, then k value heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor on q·k.
    pub scale: f64,
    /// A query sees at most this many positions, its own included.
    pub window: Option<usize>,
    /// scores → cap·tanh(scores / cap)
    pub softcap: Option<f64>,
}

impl Shape {
    /// Width of a row of the fused projection.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    fn columns(&self) -> Columns {
        let Self { heads, kv_heads, head_dim: d, .. } = *self;
        Columns { width: self.width(), keys: heads * d, values: (heads + kv_heads) * d }
    }
}

struct Columns {
    width: usize,
    keys: usize,
    values: usize,
}

/// qkv (t, (h + 2k)·d) → output (t, h·d) and log Σ exp (h, t).
pub fn forward(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<(Tensor, Tensor)> {
    if let Some(gpu) = cuda::of(qkv).filter(|_| cuda::attention::applies(shape)) {
        return cuda::attention::forward(&*gpu, qkv, trees, shape);
    }
    if cpu::applies(qkv) {
        return dispatch!(qkv.dtype(), forward_cpu(qkv, trees, shape));
    }
    let out = dense::forward(qkv, trees, shape)?;
    // The plain version computes everything again in backward.
    Ok((out, Tensor::zeros(1, DType::F32, qkv.device())?))
}

/// dout (t, h·d), with qkv, output and log Σ exp of the forward pass → dqkv (t, (h + 2k)·d).
pub fn backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    trees: &[Tree],
    shape: &Shape,
) -> Result<Tensor> {
    if let Some(gpu) = cuda::of(qkv).filter(|_| cuda::attention::applies(shape)) {
        return cuda::attention::backward(&*gpu, dout, qkv, out, lse, trees, shape);
    }
    if cpu::applies(qkv) {
        return dispatch!(qkv.dtype(), backward_cpu(dout, qkv, out, lse, trees, shape));
    }
    Ok(plain::backward(&[qkv], dout, |v| dense::forward(&v[0], trees, shape))?.swap_remove(0))
}
