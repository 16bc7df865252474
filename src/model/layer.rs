//! One layer of a decoder, forward and backward.
//!
//! What follows attention runs in the last layer at the rows that a log-prob is read from only: no other row
//! reaches the loss from there.

use candle_core::Tensor;

use super::decoder::{Batch, Decoder};
use super::gradients::Gradients;
use super::params::{LayerIds, Pair};
use crate::base::error::Result;
use crate::kernels::{activation, attention, embedding, linear, norm, plain, rope};

/// What a layer keeps for its backward pass.
pub(super) enum LayerTape {
    /// Activation checkpointing: the layer's input (t, c) only.
    Input(Tensor),
    Full(Box<Saved>),
}

/// Shapes: t rows before the end of attention, m after it (m = t but in the last layer).
pub(super) struct Saved {
    /// (t, c)
    input: Tensor,
    attention: AttentionSaved,
    /// (m, c) attention's projected output, where a norm follows it.
    projected: Option<Tensor>,
    /// (m, c) input of the feed-forward block.
    middle: Tensor,
    /// (m, 2f) or (m, f) before the nonlinearity.
    up: Tensor,
    /// (m, c) the feed-forward block's output, where a norm follows it.
    down: Option<Tensor>,
}

struct AttentionSaved {
    /// Queries and keys before their norm, (t, h·d) and (t, k·d).
    raw: Option<(Tensor, Tensor)>,
    /// (t, (h + 2k)·d) after norm and rotation.
    qkv: Tensor,
    /// (t, h·d)
    out: Tensor,
    lse: Tensor,
}

impl LayerTape {
    /// Bytes of its tensors.
    pub(super) fn bytes(&self) -> usize {
        let saved = match self {
            Self::Input(input) => return bytes(input),
            Self::Full(saved) => saved,
        };
        let Saved { input, attention, projected, middle, up, down } = saved.as_ref();
        let AttentionSaved { raw, qkv, out, lse } = attention;
        let raw = raw.iter().flat_map(|(queries, keys)| [queries, keys]);
        [input, qkv, out, lse, middle, up]
            .into_iter()
            .chain(raw)
            .chain(projected)
            .chain(down)
            .map(bytes)
            .sum()
    }
}

pub(super) fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// The rows that the part after attention runs at; `None`: all.
fn rows<'a>(decoder: &Decoder, index: usize, batch: &'a Batch) -> Option<&'a [u32]> {
    (index + 1 == decoder.config().layers.len()).then_some(batch.rows.as_slice())
}

fn project(decoder: &Decoder, x: &Tensor, ids: Pair, batch: &Batch, rows: Option<&[u32]>) -> Result<Tensor> {
    let (weight, bias) = (decoder.matrix(ids.weight), ids.bias.map(|b| decoder.weight(b)));
    let y = linear::forward_as(batch.products, None, x, weight, bias)?;
    decoder.with_side_paths(y, x, ids.weight, batch, rows)
}

/// x + the projection, or x + norm(the projection); returns what the norm was given.
fn project_onto(
    decoder: &Decoder,
    base: &Tensor,
    x: &Tensor,
    ids: Pair,
    after: Option<Pair>,
    batch: &Batch,
    rows: Option<&[u32]>,
) -> Result<(Tensor, Option<Tensor>)> {
    match after {
        None => {
            let (weight, bias) = (decoder.matrix(ids.weight), ids.bias.map(|b| decoder.weight(b)));
            let y = linear::forward_as(batch.products, Some(base), x, weight, bias)?;
            Ok((decoder.with_side_paths(y, x, ids.weight, batch, rows)?, None))
        }
        Some(after) => {
            let y = project(decoder, x, ids, batch, rows)?;
            Ok((plain::add(norm::forward(&y, decoder.norm(after))?, base)?, Some(y)))
        }
    }
}

fn normed(decoder: &Decoder, x: &Tensor, ids: Option<Pair>) -> Result<Tensor> {
    match ids {
        Some(ids) => norm::forward(x, decoder.norm(ids)),
        None => Ok(x.clone()),
    }
}

/// x (t, c) → (t, c), in the last layer (m, c); and the tape if `keep`.
pub(super) fn forward(
    decoder: &Decoder,
    index: usize,
    x: Tensor,
    batch: &Batch,
    keep: bool,
) -> Result<(Tensor, Option<LayerTape>)> {
    let attention = attend(decoder, index, &decoder.ids.layers[index], &x, batch)?;
    let (tail, out) = narrowed(decoder, index, &x, &attention.out, batch)?;
    let (y, rest) = finish(decoder, index, tail, &out, batch)?;
    if !keep {
        return Ok((y, None));
    }
    let (projected, middle, up, down) = rest;
    Ok((y, Some(LayerTape::Full(Box::new(Saved { input: x, attention, projected, middle, up, down })))))
}

/// The layer from attention's output on, nothing kept.
pub(super) fn after_attention(
    decoder: &Decoder,
    index: usize,
    x: Tensor,
    out: Tensor,
    batch: &Batch,
) -> Result<Tensor> {
    let (tail, out) = narrowed(decoder, index, &x, &out, batch)?;
    Ok(finish(decoder, index, tail, &out, batch)?.0)
}

/// The residual stream and attention's output at the rows that go on.
fn narrowed(
    decoder: &Decoder,
    index: usize,
    x: &Tensor,
    out: &Tensor,
    batch: &Batch,
) -> Result<(Tensor, Tensor)> {
    Ok(match rows(decoder, index, batch) {
        Some(rows) => (embedding::gather(x, rows)?, embedding::gather(out, rows)?),
        None => (x.clone(), out.clone()),
    })
}

/// Attention's projected output if a norm follows, the input of the feed-forward block, the block before its
/// nonlinearity, and its output if a norm follows.
type Kept = (Option<Tensor>, Tensor, Tensor, Option<Tensor>);

fn finish(
    decoder: &Decoder,
    index: usize,
    tail: Tensor,
    out: &Tensor,
    batch: &Batch,
) -> Result<(Tensor, Kept)> {
    let (ids, config, rows) = (&decoder.ids.layers[index], decoder.config(), rows(decoder, index, batch));
    let (summed, projected) = project_onto(decoder, &tail, out, ids.out, ids.after_attention, batch, rows)?;
    let middle = if config.parallel_residual { tail } else { summed.clone() };
    let up = project(decoder, &normed(decoder, &middle, ids.before_mlp)?, ids.up, batch, rows)?;
    let act = activation::forward(&up, config.activation, config.gated)?;
    let (y, down) = project_onto(decoder, &summed, &act, ids.down, ids.after_mlp, batch, rows)?;
    Ok((y, (projected, middle, up, down)))
}

fn attend(
    decoder: &Decoder,
    index: usize,
    ids: &LayerIds,
    x: &Tensor,
    batch: &Batch,
) -> Result<AttentionSaved> {
    let (raw, qkv) = queries_keys_values(decoder, index, ids, x, batch)?;
    let (out, lse) = attention::forward(&qkv, &batch.trees, &decoder.attention_shape(index))?;
    Ok(AttentionSaved { raw, qkv, out, lse })
}

/// Queries, keys and values after norm and rotation, with those before the norm where there is one.
pub(super) fn queries_keys_values(
    decoder: &Decoder,
    index: usize,
    ids: &LayerIds,
    x: &Tensor,
    batch: &Batch,
) -> Result<(Option<(Tensor, Tensor)>, Tensor)> {
    let config = decoder.config();
    let (h, k, d) = (config.heads, config.kv_heads, config.head_dim);
    let mut qkv = project(decoder, &normed(decoder, x, ids.before_attention)?, ids.qkv, batch, None)?;
    let mut raw = None;
    if let (Some(q_norm), Some(k_norm)) = (ids.q_norm, ids.k_norm) {
        let q = qkv.narrow(1, 0, h * d)?.contiguous()?;
        let key = qkv.narrow(1, h * d, k * d)?.contiguous()?;
        let parts = [
            norm::forward(&q, decoder.norm(q_norm))?,
            norm::forward(&key, decoder.norm(k_norm))?,
            qkv.narrow(1, (h + k) * d, k * d)?.contiguous()?,
        ];
        qkv = Tensor::cat(&parts, 1)?;
        raw = Some((q, key));
    }
    if let Some(angles) = batch.angles_of(&config.layers[index]) {
        qkv = rope::forward(qkv, angles, h + k, d)?;
    }
    Ok((raw, qkv))
}

/// dy (t, c), in the last layer (m, c) → dx (t, c).
pub(super) fn backward(
    decoder: &Decoder,
    index: usize,
    tape: LayerTape,
    dy: Tensor,
    batch: &Batch,
    grads: &mut Gradients,
) -> Result<Tensor> {
    let saved = match tape {
        LayerTape::Full(saved) => *saved,
        LayerTape::Input(x) => match forward(decoder, index, x, batch, true)?.1 {
            Some(LayerTape::Full(saved)) => *saved,
            _ => crate::base::error::bail!("a layer that was asked to keep its tape did not"),
        },
    };
    let Saved { input, attention, projected, middle, up, down } = saved;
    let ids = &decoder.ids.layers[index];
    let dmiddle = mlp_backward(decoder, index, &dy, &middle, up, down, batch, grads)?;
    drop(middle);
    // From here: the gradient that flows around attention, and the one in its projected output.
    let (around, dprojected) = if decoder.config().parallel_residual {
        (plain::add(dmiddle, &dy)?, dy)
    } else {
        let sum = plain::add(dmiddle, &dy)?;
        (sum.clone(), sum)
    };
    let dprojected = match (ids.after_attention, projected) {
        (Some(after), Some(y)) => decoder.norm_backward(&dprojected, &y, after, None, grads)?,
        _ => dprojected,
    };
    let AttentionSaved { raw, qkv, out, lse } = attention;
    let tail_out = match rows(decoder, index, batch) {
        Some(rows) => embedding::gather(&out, rows)?,
        None => out.clone(),
    };
    let at = rows(decoder, index, batch);
    let dout = linear_backward(decoder, &dprojected, &tail_out, ids.out, batch, at, grads)?;
    drop((dprojected, tail_out));
    let (around, dout) = match rows(decoder, index, batch) {
        Some(rows) => {
            let mut wide = (input.zeros_like()?, out.zeros_like()?);
            embedding::scatter(&around, rows, &mut wide.0)?;
            embedding::scatter(&dout, rows, &mut wide.1)?;
            wide
        }
        None => (around, dout),
    };
    let dqkv = attention::backward(&dout, &qkv, &out, &lse, &batch.trees, &decoder.attention_shape(index))?;
    drop((qkv, out, lse, dout));
    let dqkv = rotation_backward(decoder, index, ids, dqkv, raw, batch, grads)?;
    let x = normed(decoder, &input, ids.before_attention)?;
    let dx = linear_backward(decoder, &dqkv, &x, ids.qkv, batch, None, grads)?;
    drop(x);
    match ids.before_attention {
        Some(before) => decoder.norm_backward(&dx, &input, before, Some(around), grads),
        None => plain::add(around, &dx),
    }
}

/// Gradient in the block's input, without the residual's.
#[expect(clippy::too_many_arguments, reason = "what the block kept, and where its gradients go")]
fn mlp_backward(
    decoder: &Decoder,
    index: usize,
    dy: &Tensor,
    middle: &Tensor,
    up: Tensor,
    down: Option<Tensor>,
    batch: &Batch,
    grads: &mut Gradients,
) -> Result<Tensor> {
    let (ids, config, rows) = (&decoder.ids.layers[index], decoder.config(), rows(decoder, index, batch));
    let dy = match (ids.after_mlp, down) {
        (Some(after), Some(y)) => decoder.norm_backward(dy, &y, after, None, grads)?,
        _ => dy.clone(),
    };
    let dact = input_backward(decoder, &dy, ids.down, batch, rows)?;
    let (act, dup) = activation::backward(dact, up, config.activation, config.gated)?;
    weight_backward(decoder, &dy, &act, ids.down, batch, rows, grads)?;
    drop(act);
    let x = normed(decoder, middle, ids.before_mlp)?;
    let dx = linear_backward(decoder, &dup, &x, ids.up, batch, rows, grads)?;
    match ids.before_mlp {
        Some(before) => decoder.norm_backward(&dx, middle, before, None, grads),
        None => Ok(dx),
    }
}

fn rotation_backward(
    decoder: &Decoder,
    index: usize,
    ids: &LayerIds,
    mut dqkv: Tensor,
    raw: Option<(Tensor, Tensor)>,
    batch: &Batch,
    grads: &mut Gradients,
) -> Result<Tensor> {
    let config = decoder.config();
    let (h, k, d) = (config.heads, config.kv_heads, config.head_dim);
    if let Some(angles) = batch.angles_of(&config.layers[index]) {
        dqkv = rope::backward(dqkv, angles, h + k, d)?;
    }
    let (Some(q_norm), Some(k_norm), Some((q, key))) = (ids.q_norm, ids.k_norm, raw) else { return Ok(dqkv) };
    let dq = dqkv.narrow(1, 0, h * d)?.contiguous()?;
    let dk = dqkv.narrow(1, h * d, k * d)?.contiguous()?;
    let dq = decoder.norm_backward(&dq, &q, q_norm, None, grads)?;
    let dk = decoder.norm_backward(&dk, &key, k_norm, None, grads)?;
    Ok(Tensor::cat(&[dq, dk, dqkv.narrow(1, (h + k) * d, k * d)?.contiguous()?], 1)?)
}

fn linear_backward(
    decoder: &Decoder,
    dy: &Tensor,
    x: &Tensor,
    ids: Pair,
    batch: &Batch,
    rows: Option<&[u32]>,
    grads: &mut Gradients,
) -> Result<Tensor> {
    weight_backward(decoder, dy, x, ids, batch, rows, grads)?;
    input_backward(decoder, dy, ids, batch, rows)
}

fn input_backward(
    decoder: &Decoder,
    dy: &Tensor,
    ids: Pair,
    batch: &Batch,
    rows: Option<&[u32]>,
) -> Result<Tensor> {
    let dx = linear::backward_input(dy, decoder.matrix(ids.weight))?;
    decoder.side_paths_backward_input(dx, dy, ids.weight, batch, rows)
}

fn weight_backward(
    decoder: &Decoder,
    dy: &Tensor,
    x: &Tensor,
    ids: Pair,
    batch: &Batch,
    rows: Option<&[u32]>,
    grads: &mut Gradients,
) -> Result<()> {
    if !linear::can_write_over(dy) {
        grads.clear_stale(ids.weight)?;
    }
    match grads.weight_or_place(ids.weight) {
        Some((dweight, true)) => linear::backward_weight(dy, x, dweight)?,
        Some((dweight, false)) => linear::first_backward_weight(dy, x, dweight)?,
        None => {}
    }
    if let Some(bias) = ids.bias
        && let Some(dbias) = grads.weight(bias)?
    {
        linear::backward_bias(dy, dbias)?;
    }
    decoder.side_paths_backward_weights(dy, x, ids.weight, batch, rows, grads)
}
