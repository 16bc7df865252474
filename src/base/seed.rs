//! Named random streams: every draw says what it is for, so that adding one never moves another.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::hash::Hasher;

/// The stream `name` under `seed`. The same pair gives the same numbers on every machine.
pub fn rng(seed: u64, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, name))
}

/// The stream `name` under `seed` for item `index` (an example, a resample), whatever the order of use.
pub fn rng_at(seed: u64, name: &str, index: u64) -> ChaCha8Rng {
    let item = Hasher::new("kto-eval/seed-at").part(&seed.to_le_bytes()).part(name.as_bytes());
    ChaCha8Rng::seed_from_u64(item.part(&index.to_le_bytes()).u64())
}

/// A seed for a sub-task, independent of its siblings.
pub fn derive(seed: u64, name: &str) -> u64 {
    Hasher::new("kto-eval/seed").part(&seed.to_le_bytes()).part(name.as_bytes()).u64()
}
