//! Gradients of log-probs and scalars.

use candle_core::Tensor;

use super::{Decoder, Tape};
use crate::base::error::{Result, bail, ensure};
use crate::kernels::norm::{self, NormGrads};
use crate::kernels::{cpu, embedding, head, linear, plain};
use crate::model::gradients::{Gradients, zeros_for};
use crate::model::layer;
use crate::model::params::Pair;

impl Decoder {
    /// Adds the gradients of Σ `dlogps`·log-probs.
    ///
    /// # Errors
    /// If `dlogps` does not have one number for each read, or `grads` is another model's.
    pub fn backward(&self, tape: Tape, dlogps: &[f64], grads: &mut Gradients) -> Result<()> {
        self.backward_scalars(tape, dlogps, &[], grads)
    }

    /// Adds the gradients of Σ `dlogps`·log-probs + Σ `dscalars`·scalars; either may be empty where it was not
    /// computed.
    ///
    /// # Errors
    /// As [`Decoder::backward`].
    pub fn backward_scalars(
        &self,
        tape: Tape,
        dlogps: &[f64],
        dscalars: &[f64],
        grads: &mut Gradients,
    ) -> Result<()> {
        cpu::on_pool(|| self.backward_on_pool(tape, dlogps, dscalars, grads))
    }

    fn backward_on_pool(
        &self,
        tape: Tape,
        dlogps: &[f64],
        dscalars: &[f64],
        grads: &mut Gradients,
    ) -> Result<()> {
        let Tape { ids, positions, batch, layers, last, saved } = tape;
        for (what, given, wanted) in
            [("log-probs", dlogps, saved.is_some()), ("scalars", dscalars, !dscalars.is_empty())]
        {
            let reads = if wanted { batch.targets.len() } else { 0 };
            ensure!(given.len() == reads, "{} gradients for {reads} {what}", given.len());
        }
        ensure!(
            grads.tensors.len() == self.trained().len() && grads.frozen == self.adapter.is_some(),
            "gradients of another model"
        );
        let normed = norm::forward(&last, self.norm(self.ids.last_norm))?;
        let mut dx = None;
        if let Some(saved) = saved {
            let dweight = grads.weight(self.ids.head)?;
            dx = Some(head::backward(dlogps, &normed, self.head(), &batch.targets, saved, dweight)?);
        }
        if !dscalars.is_empty() {
            let (index, weight) = self.scalar_weight()?;
            let mut by_row = vec![0.0; batch.rows.len()];
            for (&(row, _), d) in batch.targets.iter().zip(dscalars) {
                by_row[row as usize] += d;
            }
            let dy = Tensor::from_vec(by_row, (batch.rows.len(), 1), &self.device)?.to_dtype(self.dtype)?;
            // Frozen only as part of a model that was saved with it.
            let frozen = grads.frozen && self.adapter.as_ref().is_some_and(|a| a.scalar().is_none());
            grads.clear_stale(index)?;
            if let Some(dweight) = grads.tensors.get_mut(index).filter(|_| !frozen) {
                linear::backward_weight(&dy, &normed, dweight)?;
            }
            let dscalar = linear::backward_input(&dy, weight)?;
            dx = Some(match dx {
                Some(dx) => plain::add(dx, &dscalar)?,
                None => dscalar,
            });
        }
        let Some(dx) = dx else { bail!("a backward pass without any gradient") };
        drop(normed);
        let mut dx = self.norm_backward(&dx, &last, self.ids.last_norm, None, grads)?;
        drop(last);
        for (index, tape) in layers.into_iter().enumerate().rev() {
            dx = layer::backward(self, index, tape, dx, &batch, grads)?;
        }
        if let Some(dtable) = grads.weight(self.ids.embedding)? {
            embedding::backward(&dx, &ids, self.config.embedding_scale, dtable)?;
        }
        if let Some(table) = self.ids.positions
            && let Some(dtable) = grads.weight(table)?
        {
            embedding::backward(&dx, &positions, 1.0, dtable)?;
        }
        grads.settle()
    }

    /// base + dx of a normalisation.
    pub(in crate::model) fn norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        ids: Pair,
        base: Option<Tensor>,
        grads: &mut Gradients,
    ) -> Result<Tensor> {
        if grads.frozen {
            let norm = self.norm(ids);
            let mut weight = zeros_for(norm.weight)?;
            let mut bias = norm.bias.map(zeros_for).transpose()?;
            let unused = NormGrads { weight: &mut weight, bias: bias.as_mut() };
            return norm::backward(dy, x, norm, unused, base);
        }
        for index in std::iter::once(ids.weight).chain(ids.bias) {
            grads.clear_stale(index)?;
        }
        let targets = match ids.bias {
            None => NormGrads { weight: &mut grads.tensors[ids.weight], bias: None },
            Some(bias) => {
                let [weight, bias] = grads.tensors.get_disjoint_mut([ids.weight, bias])?;
                NormGrads { weight, bias: Some(bias) }
            }
        };
        norm::backward(dy, x, self.norm(ids), targets, base)
    }
}
