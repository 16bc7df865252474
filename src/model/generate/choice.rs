//! A token for every sequence of a step: drawn on the GPU where the logits lie, else on the host.

use candle_core::{DType, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::decoding::Decoding;
use super::sampler::{nan, nothing_finite, sample_with_logp};
use crate::base::error::{Result, ensure};
use crate::kernels::cuda;
use crate::kernels::cuda::sample::{Asked, Drawn, Rule};

/// A sequence that wants a token.
pub struct Chooser<'a> {
    /// Of the logits; several may read one.
    pub row: usize,
    /// Prompt and completion so far.
    pub seen: &'a [u32],
    /// Its own, so that the draw depends on nobody else.
    pub rng: &'a mut ChaCha8Rng,
}

/// logits (m, v) → each sequence's token and its log-prob, as [`sample_with_logp`] draws them, from the same random
/// numbers. On a GPU sums are taken in another order: the token differs where the number falls within rounding of the
/// border between two.
///
/// # Errors
/// Where the logits hold a NaN or nothing finite; a row that is not there.
pub fn choose(
    logits: &Tensor,
    sequences: &mut [Chooser<'_>],
    decoding: &Decoding,
) -> Result<Vec<(u32, f64)>> {
    match cuda::of(logits) {
        Some(gpu) => on_gpu(&*gpu, logits, sequences, decoding),
        None => on_host(logits, sequences, decoding),
    }
}

fn on_gpu(
    gpu: &dyn cuda::Gpu,
    logits: &Tensor,
    sequences: &mut [Chooser<'_>],
    decoding: &Decoding,
) -> Result<Vec<(u32, f64)>> {
    let Decoding { temperature, top_k, top_p, min_p, repetition_penalty, .. } = *decoding;
    let rule = Rule { temperature, top_k, top_p, min_p, repetition_penalty };
    let asked = |s: &mut Chooser<'_>| {
        let u = if decoding.greedy() { 0.0 } else { s.rng.random() };
        (s.row, u)
    };
    let draws: Vec<(usize, f64)> = sequences.iter_mut().map(asked).collect();
    let asked: Vec<Asked<'_>> =
        sequences.iter().zip(draws).map(|(s, (row, u))| Asked { row, seen: s.seen, u }).collect();
    let logits = logits.to_dtype(DType::F32)?;
    let drawn = cuda::sample::draw(gpu, &logits, &asked, &rule)?;
    let token = |drawn| match drawn {
        Drawn::Token(token, logp) => Ok((token, logp)),
        Drawn::Nan(place) => Err(nan(place)),
        Drawn::Nothing => Err(nothing_finite(logits.dim(1)?)),
    };
    drawn.into_iter().map(token).collect()
}

fn on_host(logits: &Tensor, sequences: &mut [Chooser<'_>], decoding: &Decoding) -> Result<Vec<(u32, f64)>> {
    let (m, v) = logits.dims2()?;
    let rows = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    ensure!(sequences.iter().all(|s| s.row < m), "drawing from more than the {m} rows of logits");
    // Drawing uses a row up.
    let mut own = match sequences.iter().map(|s| s.row).eq(0..m) {
        true => rows,
        false => sequences.iter().flat_map(|s| &rows[s.row * v..(s.row + 1) * v]).copied().collect(),
    };
    sequences
        .par_iter_mut()
        .zip(own.par_chunks_mut(v))
        .map(|(s, row)| sample_with_logp(row, s.seen, decoding, s.rng))
        .collect()
}
