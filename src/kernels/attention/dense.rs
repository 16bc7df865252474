//! Attention out of candle ops, one segment at a time with a dense mask.

use candle_core::{D, DType, Tensor};
use std::ops::Range;

use super::{Cached, Columns, Shape, Tree};
use crate::base::error::Result;

/// qkv (t, (h + 2k)·d) → (t, h·d).
pub fn forward(qkv: &Tensor, trees: &[Tree], shape: &Shape) -> Result<Tensor> {
    let mut pieces = Vec::new();
    for tree in trees {
        for (i, own) in std::iter::once(&tree.root).chain(&tree.branches).enumerate() {
            let past = if i == 0 { 0..0 } else { tree.root.clone() };
            pieces.push((own.start, segment(qkv, past, own.clone(), shape)?));
        }
    }
    pieces.sort_by_key(|(start, _)| *start);
    let outs: Vec<Tensor> = pieces.into_iter().map(|(_, out)| out).collect();
    Ok(Tensor::cat(&outs, 0)?)
}

fn segment(qkv: &Tensor, past: Range<usize>, own: Range<usize>, shape: &Shape) -> Result<Tensor> {
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let Columns { keys, values, .. } = shape.columns();
    let (n, p, group) = (own.len(), past.len(), heads / kv_heads);
    let inner = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mine = qkv.narrow(0, own.start, n)?;
    let seen = if p == 0 { mine.clone() } else { Tensor::cat(&[&qkv.narrow(0, past.start, p)?, &mine], 0)? };
    let split = |x: &Tensor, from: usize, count: usize| -> Result<Tensor> {
        let rows = x.dim(0)?;
        Ok(x.narrow(1, from, count * d)?.reshape((rows, count, d))?.transpose(0, 1)?.contiguous()?)
    };
    let q = split(&mine, 0, heads)?.reshape((kv_heads, group * n, d))?;
    let (k, v) = (split(&seen, keys, kv_heads)?, split(&seen, values, kv_heads)?);
    let scores = (q.matmul(&k.t()?)?.to_dtype(inner)? * shape.scale)?;
    let scores = match shape.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let window = shape.window.unwrap_or(usize::MAX);
    let hidden = (0..n).flat_map(|i| (0..n + p).map(move |j| (i, j)));
    let mask: Vec<f32> =
        hidden.map(|(i, j)| if j > p + i || p + i - j >= window { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, n, n + p), qkv.device())?.to_dtype(inner)?;
    let scores = scores.reshape((kv_heads, group, n, n + p))?.broadcast_add(&mask)?;
    let weights = (scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?).exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(qkv.dtype())?;
    let out = weights.reshape((kv_heads, group * n, n + p))?.matmul(&v)?;
    Ok(out.reshape((heads, n, d))?.transpose(0, 1)?.reshape((n, heads * d))?)
}

/// One sequence's new tokens against its cache.
pub(super) fn cached(mine: &Tensor, k: &Tensor, v: &Tensor, entry: &Cached, shape: &Shape) -> Result<Tensor> {
    let past = |x: &Tensor| -> Result<Tensor> {
        Ok(x.narrow(1, 0, entry.past)?.transpose(0, 1)?.contiguous()?.flatten_from(1)?)
    };
    let no_queries = Tensor::zeros((entry.past, shape.heads * shape.head_dim), mine.dtype(), mine.device())?;
    let before = Tensor::cat(&[no_queries, past(k)?, past(v)?], 1)?;
    let all = Tensor::cat(&[&before, mine], 0)?;
    segment(&all, 0..entry.past, entry.past..entry.past + entry.len, shape)
}
