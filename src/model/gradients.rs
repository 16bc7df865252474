//! One gradient tensor per parameter.

use candle_core::{DType, Tensor};

use super::decoder::Decoder;
use super::params::{Param, Piece};
use crate::base::error::{Result, ensure};
use crate::kernels::cpu::{self, dispatch};
use crate::kernels::cuda;
use crate::kernels::linear;
use crate::kernels::real::Real;

/// Accumulated gradients, in the order of [`Decoder::trained`]; f32 where parameters are narrower, since a sum over
/// micro-batches in bf16 would lose what is small beside it.
pub struct Gradients {
    pub(super) tensors: Vec<Tensor>,
    pieces: Vec<Vec<Piece>>,
    /// They are an adapter's: the weights themselves have none.
    pub(super) frozen: bool,
    /// Those whose numbers are of the last step: what comes first is written over them.
    stale: Vec<bool>,
}

impl Gradients {
    /// One for each trained parameter: of its shape, in f64 where the parameter is, else in f32.
    ///
    /// # Errors
    /// A quantised base without an adapter, which has nothing to train.
    pub fn zeros(decoder: &Decoder) -> Result<Self> {
        ensure!(
            decoder.trained().iter().all(|p| p.blocks.is_none()),
            "a quantised base is frozen: what is trained on it is an adapter"
        );
        let zeros = |p: &Param| zeros_for(&p.tensor);
        let tensors: Vec<Tensor> = decoder.trained().iter().map(zeros).collect::<Result<_>>()?;
        let pieces = decoder.trained().iter().map(|p| p.pieces.clone()).collect();
        let stale = vec![false; tensors.len()];
        Ok(Self { tensors, pieces, frozen: decoder.adapter().is_some(), stale })
    }

    /// The gradient of a weight by its index in [`Decoder::params`], to be added to; `None` where the weights are
    /// frozen.
    pub(super) fn weight(&mut self, index: usize) -> Result<Option<&mut Tensor>> {
        if self.frozen {
            return Ok(None);
        }
        self.clear_stale(index)?;
        Ok(self.tensors.get_mut(index))
    }

    /// As [`Self::weight`]; true where it is to be added to, false where it is to be written over.
    pub(super) fn weight_or_place(&mut self, index: usize) -> Option<(&mut Tensor, bool)> {
        if self.frozen {
            return None;
        }
        let adds = !std::mem::take(self.stale.get_mut(index)?);
        self.tensors.get_mut(index).map(|tensor| (tensor, adds))
    }

    /// Back to zero, without allocating.
    pub fn zero_(&mut self) -> Result<()> {
        self.scale_(0.0)?;
        self.stale.fill(false);
        Ok(())
    }

    /// Back to zero as far as the next backward pass is concerned, which must come before anything is read: its
    /// products write over what stands here, which spares clearing it and reading the zeros.
    pub fn restart_(&mut self) -> Result<()> {
        if self.frozen || !self.tensors.iter().all(linear::can_write_over) {
            return self.zero_();
        }
        self.stale.fill(true);
        Ok(())
    }

    /// The end of a backward pass: what it did not reach is zero.
    pub(super) fn settle(&mut self) -> Result<()> {
        (0..self.tensors.len()).try_for_each(|index| self.clear_stale(index))
    }

    /// Zeros in place of the last step's numbers.
    pub(super) fn clear_stale(&mut self, index: usize) -> Result<()> {
        if self.stale.get_mut(index).is_some_and(std::mem::take) {
            scale(&mut self.tensors[index], 0.0)?;
        }
        Ok(())
    }

    /// Multiplies every gradient; a factor of 0 also clears NaN.
    pub fn scale_(&mut self, factor: f64) -> Result<()> {
        cpu::on_pool(|| self.tensors.iter_mut().try_for_each(|tensor| scale(tensor, factor)))
    }

    /// L2 norm over all gradients, accumulated in f64.
    pub fn global_norm(&self) -> Result<f64> {
        Ok(sums_of_squares(&self.tensors)?.iter().sum::<f64>().sqrt())
    }

    /// (Hugging Face name, L2 norm) of every tensor of the checkpoint.
    pub fn named_norms(&self) -> Result<Vec<(String, f64)>> {
        let (mut names, mut parts) = (Vec::new(), Vec::new());
        for (tensor, pieces) in self.tensors.iter().zip(&self.pieces) {
            for piece in pieces {
                names.push(piece.name.clone());
                parts.push(tensor.narrow(0, piece.rows.start, piece.rows.len())?);
            }
        }
        Ok(names.into_iter().zip(sums_of_squares(&parts)?.into_iter().map(f64::sqrt)).collect())
    }

    /// One a trained parameter, in their order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Where the gradient of `tensor` accumulates.
pub(super) fn zeros_for(tensor: &Tensor) -> Result<Tensor> {
    let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(Tensor::zeros(tensor.shape(), dtype, tensor.device())?)
}

fn scale(tensor: &mut Tensor, factor: f64) -> Result<()> {
    if let Some(gpu) = cuda::of(tensor) {
        return cuda::sums::scale(&*gpu, tensor, factor);
    }
    if cpu::applies(tensor) {
        return dispatch!(tensor.dtype(), scale_cpu(tensor, factor));
    }
    *tensor = if factor == 0.0 { tensor.zeros_like()? } else { (&*tensor * factor)? };
    Ok(())
}

fn sums_of_squares(tensors: &[Tensor]) -> Result<Vec<f64>> {
    match tensors.first().and_then(cuda::of) {
        Some(gpu) => cuda::sums::sums_of_squares(&*gpu, tensors),
        None => cpu::on_pool(|| tensors.iter().map(sum_of_squares).collect()),
    }
}

fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    if cpu::applies(tensor) {
        return dispatch!(tensor.dtype(), sum_of_squares_cpu(tensor));
    }
    Ok(tensor.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?)
}

fn sum_of_squares_cpu<T: Real>(tensor: &Tensor) -> Result<f64> {
    use rayon::prelude::*;
    let data = cpu::slice::<T>(tensor)?;
    let data: &[T] = &data;
    // Pieces of a fixed size, so that the sum does not depend on the thread count.
    let partial = |chunk: &[T]| {
        cpu::simd(
            #[inline(always)]
            || {
                let mut lanes = [0.0f64; 8];
                let mut chunks = chunk.chunks_exact(8);
                for eight in &mut chunks {
                    for (lane, x) in lanes.iter_mut().zip(eight) {
                        let x = x.to_f64();
                        *lane += x * x;
                    }
                }
                let rest = chunks.remainder().iter().map(|x| x.to_f64() * x.to_f64());
                lanes.iter().sum::<f64>() + rest.sum::<f64>()
            },
        )
    };
    let partials: Vec<f64> = data.par_chunks(1 << 15).map(partial).collect();
    Ok(partials.iter().sum())
}

fn scale_cpu<T: Real>(tensor: &Tensor, factor: f64) -> Result<()> {
    use rayon::prelude::*;
    let factor = T::of(factor);
    cpu::update::<T>(tensor, |data| {
        data.par_chunks_mut(1 << 15).for_each(|chunk| {
            if factor == T::ZERO {
                chunk.fill(T::ZERO);
            } else {
                chunk.iter_mut().for_each(|x| *x *= factor);
            }
        });
        Ok(())
    })
}
