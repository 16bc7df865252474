//! The order in which examples are trained on.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::base::seed;
use crate::plan::Order;

/// An endless, seeded sequence of indices below n: epoch after epoch, each a new permutation (or the
/// file's order). The place in it can be saved and taken up again.
#[derive(Clone, Debug)]
pub struct Sampler {
    order: Order,
    seed: u64,
    state: SamplerState,
    /// This epoch's permutation of 0..n.
    permutation: Vec<usize>,
}

/// A place in a [`Sampler`]'s sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// Epochs completed.
    pub epoch: u64,
    /// Indices drawn in the present one.
    pub position: usize,
}

impl Sampler {
    /// # Panics
    /// If n is 0: there is nothing to draw from.
    pub fn new(n: usize, order: Order, seed: u64) -> Self {
        assert!(n > 0, "a sampler needs at least one example");
        let mut sampler = Self { order, seed, state: SamplerState::default(), permutation: (0..n).collect() };
        sampler.permute();
        sampler
    }

    /// The sampler where it stood when [`Sampler::state`] was taken, given the same n, order and seed.
    pub fn restore(n: usize, order: Order, seed: u64, state: SamplerState) -> Self {
        let mut sampler = Self::new(n, order, seed);
        sampler.state = SamplerState { epoch: state.epoch, position: state.position.min(n) };
        sampler.permute();
        sampler
    }

    /// The next index.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so there is no Option to return")]
    pub fn next(&mut self) -> usize {
        if self.state.position == self.permutation.len() {
            self.state = SamplerState { epoch: self.state.epoch + 1, position: 0 };
            self.permute();
        }
        self.state.position += 1;
        self.permutation[self.state.position - 1]
    }

    pub fn state(&self) -> SamplerState {
        self.state
    }

    /// Each epoch's permutation depends on the seed and the epoch alone, so that any place can be found
    /// again without drawing what came before.
    fn permute(&mut self) {
        if self.order == Order::Shuffled {
            self.permutation.sort_unstable();
            self.permutation.shuffle(&mut seed::rng_at(self.seed, "data/order", self.state.epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampler: &mut Sampler, n: usize) -> Vec<usize> {
        (0..n).map(|_| sampler.next()).collect()
    }

    #[test]
    fn each_epoch_is_a_new_permutation() {
        let mut sampler = Sampler::new(50, Order::Shuffled, 7);
        let (first, second) = (draw(&mut sampler, 50), draw(&mut sampler, 50));
        assert_eq!(sampler.state(), SamplerState { epoch: 1, position: 50 });
        assert_ne!(first, second);
        for mut epoch in [first.clone(), second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..50).collect::<Vec<_>>());
        }
        assert_eq!(first, draw(&mut Sampler::new(50, Order::Shuffled, 7), 50), "same seed, same order");
        assert_ne!(first, draw(&mut Sampler::new(50, Order::Shuffled, 8), 50));
    }

    #[test]
    fn sequential_keeps_the_order_of_the_file() {
        assert_eq!(draw(&mut Sampler::new(3, Order::Sequential, 1), 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_restored_sampler_goes_on_where_the_first_one_stood() {
        for taken in [0, 1, 9, 10, 11, 25] {
            let mut whole = Sampler::new(10, Order::Shuffled, 3);
            draw(&mut whole, taken);
            let saved = serde_json::to_string(&whole.state()).unwrap();
            let state = serde_json::from_str(&saved).unwrap();
            let mut resumed = Sampler::restore(10, Order::Shuffled, 3, state);
            assert_eq!(draw(&mut resumed, 30), draw(&mut whole, 30));
        }
    }

    #[test]
    fn every_first_place_is_equally_likely() {
        let mut counts = [0u32; 8];
        for seed in 0..4000 {
            counts[Sampler::new(8, Order::Shuffled, seed).next()] += 1;
        }
        // χ² with 7 degrees of freedom; 24.3 is its 99.9 % point.
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 500.0).powi(2) / 500.0).sum();
        assert!(chi2 < 24.3, "{counts:?}: {chi2}");
    }
}
