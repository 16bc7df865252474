//! Analytic floating-point operations.

use super::Decoder;
use crate::model::config::ScalarHead;
use crate::model::packed::Packed;
use crate::model::params::Pair;

impl Decoder {
    /// FLOPs of a forward pass as computed here (two per multiply-add): products with weights, scores and
    /// weighted values of visible pairs, the vocabulary projection at the rows that are read. The last layer
    /// computes what follows attention at those rows only. The adapter's side paths are among them.
    pub fn flops(&self, batch: &Packed) -> f64 {
        self.work(batch).into_iter().sum()
    }

    /// As [`Self::flops`], with the adapter off.
    pub fn base_flops(&self, batch: &Packed) -> f64 {
        let [products, attention, _] = self.work(batch);
        products + attention
    }

    /// FLOPs of forward and backward: three forwards, but for the products with frozen weights, which need
    /// the gradient of their input alone.
    pub fn training_flops(&self, batch: &Packed) -> f64 {
        let [products, attention, side] = self.work(batch);
        let weights = if self.adapter.is_some() { 2.0 } else { 3.0 };
        weights * products + 3.0 * (attention + side)
    }

    /// FLOPs of a forward pass: products with weights, attention, side paths.
    fn work(&self, batch: &Packed) -> [f64; 3] {
        let c = &self.config;
        let mut read: Vec<u32> = batch.reads.iter().map(|r| r.row).collect();
        read.sort_unstable();
        read.dedup();
        let (all, read) = (batch.ids.len() as f64, read.len() as f64);
        let outputs = match c.scalar {
            None => c.vocab,
            Some(ScalarHead::Score) => 1,
            // Trained with the adapter, it is no part of the base.
            Some(ScalarHead::Value) if self.adapter.is_some() => c.vocab,
            Some(ScalarHead::Value) => c.vocab + 1,
        };
        let (mut products, mut attention, mut side) = (2.0 * read * (outputs * c.hidden) as f64, 0.0, 0.0);
        if c.scalar == Some(ScalarHead::Value) && self.adapter.is_some() {
            side += 2.0 * read * c.hidden as f64;
        }
        for (index, kind) in c.layers.iter().enumerate() {
            let rows = if index + 1 == c.layers.len() { read } else { all };
            let ids = &self.ids.layers[index];
            let size = |pair: Pair| self.params[pair.weight].tensor.elem_count() as f64;
            products += 2.0 * (all * size(ids.qkv) + rows * (size(ids.out) + size(ids.up) + size(ids.down)));
            if let Some(adapter) = &self.adapter {
                let size = |pair: Pair| adapter.work(pair.weight);
                side += 2.0 * (all * size(ids.qkv) + rows * (size(ids.out) + size(ids.up) + size(ids.down)));
            }
            let visible: f64 = batch
                .segments
                .iter()
                .map(|s| {
                    let past = s.continues.map_or(0, |p| batch.segments[p].len);
                    (past..past + s.len)
                        .map(|at| (at + 1).min(kind.window.unwrap_or(usize::MAX)) as f64)
                        .sum::<f64>()
                })
                .sum();
            attention += 4.0 * visible * (c.heads * c.head_dim) as f64;
        }
        [products, attention, side]
    }
}
