//! Incremental decoding: keys and values of what has been read, per slot.

use candle_core::{DType, Tensor};

use super::decoder::{Batch, Decoder};
use super::layer;
use crate::base::error::{Result, ensure};
use crate::kernels::attention::{self, Cached};
use crate::kernels::linear::Products;
use crate::kernels::{head, norm};

/// Keys and values of several sequences (slots), in every layer.
pub struct KvCache {
    capacity: usize,
    lengths: Vec<usize>,
    /// By layer and slot; (k, capacity, d) each, made when first used.
    layers: Vec<Vec<Option<(Tensor, Tensor)>>>,
}

impl KvCache {
    /// Tokens that a slot holds.
    pub fn len(&self, slot: usize) -> usize {
        self.lengths.get(slot).copied().unwrap_or(0)
    }

    /// Forgets a slot's tokens.
    pub fn clear(&mut self, slot: usize) {
        if let Some(length) = self.lengths.get_mut(slot) {
            *length = 0;
        }
    }

    /// Makes slot `to` hold what slot `from` holds, in storage of its own.
    ///
    /// # Errors
    /// An unknown slot; a copy that fails.
    pub fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        let slots = self.lengths.len();
        ensure!(from < slots && to < slots, "the cache has {slots} slots, not {}", from.max(to));
        for layer in &mut self.layers {
            layer[to] = match &layer[from] {
                Some((keys, values)) => Some((keys.copy()?, values.copy()?)),
                None => None,
            };
        }
        self.lengths[to] = self.lengths[from];
        Ok(())
    }
}

impl Decoder {
    /// An empty cache for `slots` sequences of at most `capacity` tokens; its tensors are made when first used.
    pub fn new_cache(&self, slots: usize, capacity: usize) -> Result<KvCache> {
        let layers = vec![vec![None; slots]; self.config().layers.len()];
        Ok(KvCache { capacity, lengths: vec![0; slots], layers })
    }

    /// Appends each slot's tokens (many to begin with, then one at a time) and returns the logits of the token
    /// that follows the last of each, (inputs, v) in f32.
    ///
    /// # Errors
    /// An unknown slot, a slot named twice, no tokens, or more than the slot's capacity.
    pub fn step(&self, cache: &mut KvCache, inputs: &[(usize, &[u32])]) -> Result<Tensor> {
        for (i, (slot, tokens)) in inputs.iter().enumerate() {
            ensure!(!tokens.is_empty(), "no tokens for slot {slot}");
            let again = inputs[..i].iter().any(|(other, _)| other == slot);
            ensure!(!again, "slot {slot} is named twice in one step");
        }
        let mut entries = Vec::new();
        let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for &(slot, tokens) in inputs {
            let held = cache.lengths.get(slot).copied();
            let past = held.ok_or_else(|| {
                crate::base::error::anyhow!("the cache has {} slots, not {slot}", cache.lengths.len())
            })?;
            ensure!(
                past + tokens.len() <= cache.capacity,
                "slot {slot} holds {past} of {} tokens, {} more do not fit",
                cache.capacity,
                tokens.len()
            );
            entries.push(Cached { slot, row: ids.len(), len: tokens.len(), past });
            positions.extend((past..past + tokens.len()).map(|p| p as u32));
            ids.extend_from_slice(tokens);
            last.push(ids.len() as u32 - 1);
        }
        let batch = Batch {
            trees: Vec::new(),
            angles: self.angles(&positions)?,
            rows: last,
            targets: Vec::new(),
            dropout: None,
            products: Products::Rowwise,
        };
        let mut x = self.embed(&ids, &positions)?;
        for index in 0..self.config().layers.len() {
            let layer_ids = &self.ids.layers[index];
            let (_, qkv) = layer::queries_keys_values(self, index, layer_ids, &x, &batch)?;
            let (slots, shape) = (&mut cache.layers[index], self.attention_shape(index));
            let out = attention::cached(&qkv, slots, cache.capacity, &entries, &shape)?;
            x = layer::after_attention(self, index, x, out, &batch)?;
        }
        for entry in &entries {
            cache.lengths[entry.slot] = entry.past + entry.len;
        }
        let normed = norm::forward(&x, self.norm(self.ids.last_norm))?;
        Ok(head::logits(&normed, self.head())?.to_dtype(DType::F32)?)
    }
}
