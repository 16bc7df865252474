//! Log-probs and scalars of a packed batch, with or without what backward needs.

use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

use super::Decoder;
use crate::base::error::{Result, bail, ensure};
use crate::kernels::attention::Tree;
use crate::kernels::cpu;
use crate::kernels::head::{self, Target};
use crate::kernels::linear::Products;
use crate::kernels::rope::{self, Angles};
use crate::kernels::{embedding, linear, norm, plain};
use crate::model::adapter::{Adapter, Dropout};
use crate::model::config::{LayerKind, Rope};
use crate::model::layer::{self, LayerTape};
use crate::model::packed::Packed;

/// What [`Decoder::backward`] needs of a forward pass; a layer's part is freed as its backward ends.
pub struct Tape {
    pub(super) ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) batch: Batch,
    pub(super) layers: Vec<LayerTape>,
    /// (m, c) input of the last normalisation, at the rows that are read.
    pub(super) last: Tensor,
    /// Absent where no log-prob was computed.
    pub(super) saved: Option<head::Saved>,
}

impl Tape {
    /// Bytes that it keeps in tensors, those that two of its parts share counted twice.
    pub fn bytes(&self) -> usize {
        let saved = self.saved.as_ref().map_or(0, head::Saved::bytes);
        self.layers.iter().map(LayerTape::bytes).sum::<usize>() + layer::bytes(&self.last) + saved
    }
}

/// A packed batch in the terms of the kernels.
pub(in crate::model) struct Batch {
    pub trees: Vec<Tree>,
    /// Angles by layer kind, in the order of `Decoder::ropes`.
    pub angles: Vec<(Rope, Angles)>,
    /// The rows of hidden states that any log-prob is read from, ascending.
    pub rows: Vec<u32>,
    /// Per read: index into `rows`, and the target.
    pub targets: Vec<Target>,
    /// Of the adapter's inputs, in training.
    pub dropout: Option<Dropout>,
    pub products: Products,
}

impl Batch {
    pub fn angles_of(&self, kind: &LayerKind) -> Option<&Angles> {
        let rope = kind.rope?;
        self.angles.iter().find(|(r, _)| *r == rope).map(|(_, angles)| angles)
    }
}

impl Decoder {
    /// Log-probs (r,) of the batch's reads; nothing is kept.
    pub fn logps(&self, batch: &Packed) -> Result<Vec<f64>> {
        cpu::on_pool(|| self.logps_on_pool(batch))
    }

    fn logps_on_pool(&self, batch: &Packed) -> Result<Vec<f64>> {
        let parts = self.batch(batch)?;
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        for index in 0..self.config.layers.len() {
            x = layer::forward(self, index, x, &parts, false)?.0;
        }
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        Ok(head::forward(&normed, self.head(), &parts.targets, false)?.0)
    }

    /// Log-probs (r,) of the batch's reads, and what backward needs.
    pub fn forward(&self, batch: &Packed) -> Result<(Vec<f64>, Tape)> {
        self.forward_training(batch, None)
    }

    /// As [`Self::forward`], with the adapter's dropout as drawn for the step.
    pub fn forward_training(&self, batch: &Packed, dropout: Option<Dropout>) -> Result<(Vec<f64>, Tape)> {
        cpu::on_pool(|| self.forward_on_pool(batch, dropout))
    }

    fn forward_on_pool(&self, batch: &Packed, dropout: Option<Dropout>) -> Result<(Vec<f64>, Tape)> {
        let parts = Batch { dropout, ..self.batch(batch)? };
        let (x, layers) = self.run_layers(batch, &parts)?;
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        let (logps, saved) = head::forward(&normed, self.head(), &parts.targets, true)?;
        let (ids, positions) = (batch.ids.clone(), batch.positions.clone());
        Ok((logps, Tape { ids, positions, batch: parts, layers, last: x, saved: Some(saved) }))
    }

    /// [`Decoder::forward`] with the scalar head's number at each read: (r,) log-probs, empty unless asked for,
    /// (r,) scalars, and what backward needs.
    ///
    /// # Errors
    /// The model has no scalar head.
    pub fn forward_scalars(&self, batch: &Packed, logps: bool) -> Result<(Vec<f64>, Vec<f64>, Tape)> {
        cpu::on_pool(|| self.forward_scalars_on_pool(batch, logps))
    }

    fn forward_scalars_on_pool(&self, batch: &Packed, logps: bool) -> Result<(Vec<f64>, Vec<f64>, Tape)> {
        let parts = self.batch(batch)?;
        let (x, layers) = self.run_layers(batch, &parts)?;
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        let scalars = self.scalars_of(&normed, &parts)?;
        let (logps, saved) = match logps {
            true => head::forward(&normed, self.head(), &parts.targets, true).map(|(l, s)| (l, Some(s)))?,
            false => (Vec::new(), None),
        };
        let (ids, positions) = (batch.ids.clone(), batch.positions.clone());
        Ok((logps, scalars, Tape { ids, positions, batch: parts, layers, last: x, saved }))
    }

    /// (r,) the scalar head's number at each read; nothing is kept.
    ///
    /// # Errors
    /// The model has no scalar head.
    pub fn scalars(&self, batch: &Packed) -> Result<Vec<f64>> {
        cpu::on_pool(|| self.scalars_on_pool(batch))
    }

    fn scalars_on_pool(&self, batch: &Packed) -> Result<Vec<f64>> {
        let parts = self.batch(batch)?;
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        for index in 0..self.config.layers.len() {
            x = layer::forward(self, index, x, &parts, false)?.0;
        }
        self.scalars_of(&norm::forward(&x, self.norm(self.ids.last_norm))?, &parts)
    }

    /// Every layer with its tape: (m, c) before the last normalisation.
    fn run_layers(&self, batch: &Packed, parts: &Batch) -> Result<(Tensor, Vec<LayerTape>)> {
        let mut x = self.embed(&batch.ids, &batch.positions)?;
        let mut layers = Vec::with_capacity(self.config.layers.len());
        for index in 0..self.config.layers.len() {
            let input = x.clone();
            let (out, tape) = layer::forward(self, index, x, parts, !self.checkpointing)?;
            layers.push(tape.unwrap_or(LayerTape::Input(input)));
            x = out;
        }
        Ok((x, layers))
    }

    /// The scalar head: its place among what is trained, and its weights.
    pub(super) fn scalar_weight(&self) -> Result<(usize, &Tensor)> {
        match (self.ids.scalar, self.adapter.as_ref().and_then(Adapter::scalar)) {
            (Some(_), Some(trained)) => Ok(trained),
            (Some(index), None) => Ok((index, self.weight(index))),
            (None, _) => bail!("the model has no scalar head: it is no reward model and has no critic"),
        }
    }

    /// normed (m, c) → (r,)
    fn scalars_of(&self, normed: &Tensor, parts: &Batch) -> Result<Vec<f64>> {
        let by_row = linear::forward(normed, self.scalar_weight()?.1, None)?; // (m, 1)
        let by_row: Vec<f64> = by_row.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        Ok(parts.targets.iter().map(|&(row, _)| by_row[row as usize]).collect())
    }

    pub(in crate::model) fn batch(&self, packed: &Packed) -> Result<Batch> {
        let mut rows: Vec<u32> = packed.reads.iter().map(|r| r.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut targets = Vec::with_capacity(packed.reads.len());
        for read in &packed.reads {
            ensure!(
                (read.target as usize) < self.config.vocab,
                "token id {} is beyond the vocabulary of {}",
                read.target,
                self.config.vocab
            );
            let Ok(at) = rows.binary_search(&read.row) else { bail!("a read without a row") };
            targets.push((at as u32, read.target));
        }
        Ok(Batch {
            trees: trees(packed)?,
            angles: self.angles(&packed.positions)?,
            rows,
            targets,
            dropout: None,
            products: Products::Blocked,
        })
    }

    pub(in crate::model) fn angles(&self, positions: &[u32]) -> Result<Vec<(Rope, Angles)>> {
        let mut angles: Vec<(Rope, Angles)> = Vec::new();
        let like = &self.params[self.ids.embedding].tensor;
        for rope in self.config.layers.iter().filter_map(|l| l.rope) {
            if !angles.iter().any(|(known, _)| *known == rope) {
                angles.push((rope, rope::angles(positions, &rope.inverse_frequencies(), 1.0, like)?));
            }
        }
        Ok(angles)
    }

    pub(in crate::model) fn embed(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let x =
            embedding::forward(&self.params[self.ids.embedding].tensor, ids, self.config.embedding_scale)?;
        let Some(table) = self.ids.positions else { return Ok(x) };
        if let Some(last) = positions.iter().max().filter(|p| **p as usize >= self.config.max_positions) {
            bail!("position {last} is beyond the {} that the model has learned", self.config.max_positions);
        }
        plain::add(x, &embedding::forward(&self.params[table].tensor, positions, 1.0)?)
    }
}

/// Segments as trees: a root with those that continue it.
fn trees(packed: &Packed) -> Result<Vec<Tree>> {
    let mut trees: BTreeMap<usize, Tree> = BTreeMap::new();
    for (index, segment) in packed.segments.iter().enumerate() {
        let own = segment.start..segment.start + segment.len;
        ensure!(own.end <= packed.ids.len(), "segment {index} ends beyond the batch");
        match segment.continues {
            None => drop(trees.insert(index, Tree { root: own, branches: Vec::new() })),
            Some(root) => match trees.get_mut(&root) {
                Some(tree) => tree.branches.push(own),
                None => bail!("segment {index} continues {root}, which is no root before it"),
            },
        }
    }
    Ok(trees.into_values().collect())
}
