//! The project's decoder, advanced token by token.

use candle_core::Tensor;

use super::engine::Advance;
use crate::base::error::Result;
use crate::kernels::cpu;
use crate::model::{Decoder, KvCache};

impl Advance for Decoder {
    type Cache = KvCache;

    fn context(&self) -> usize {
        self.config().max_positions
    }

    fn new_cache(&self, slots: usize, capacity: usize) -> Result<KvCache> {
        Decoder::new_cache(self, slots, capacity)
    }

    fn step(&self, cache: &mut KvCache, inputs: &[(usize, &[u32])]) -> Result<Tensor> {
        // On a thread of the pool: from outside, each of a step's many small products would have to wake the pool.
        cpu::on_pool(|| Decoder::step(self, cache, inputs))
    }

    fn fork(&self, cache: &mut KvCache, from: usize, to: usize) -> Result<()> {
        cache.fork(from, to)
    }

    fn clear(&self, cache: &mut KvCache, slot: usize) {
        cache.clear(slot);
    }

    fn cache_bytes(&self, slots: usize, capacity: usize) -> usize {
        let config = self.config();
        // Keys and values of every layer.
        2 * config.layers.len()
            * slots
            * capacity
            * config.kv_heads
            * config.head_dim
            * self.dtype().size_in_bytes()
    }
}
