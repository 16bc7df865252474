//! The strength of the KL penalty, fixed or adaptive (Ziegler et al. 2019, arXiv 1909.08593, section 2.2):
//!
//! e = clip(KL/target − 1, −0.2, 0.2),  β ← β (1 + 0.1 e)

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlControl {
    pub beta: f64,
    /// Nats a sample; 0: β stays.
    target: f64,
}

impl KlControl {
    pub fn new(beta: f64, target: f64) -> Self {
        Self { beta, target }
    }

    /// Takes note of a rollout's mean KL, nats a sample.
    pub fn observe(&mut self, kl: f64) {
        if self.target > 0.0 {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.beta *= 1.0 + 0.1 * error;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_follows_its_target_by_at_most_two_percent_a_step() {
        let mut fixed = KlControl::new(0.1, 0.0);
        fixed.observe(1e6);
        assert_eq!(fixed.beta, 0.1);
        for (kl, factor) in [(100.0, 1.02), (0.0, 0.98), (6.0, 1.0), (6.6, 1.01)] {
            let mut control = KlControl::new(0.1, 6.0);
            control.observe(kl);
            assert!((control.beta - 0.1 * factor).abs() < 1e-12, "{kl}: {}", control.beta);
        }
    }
}
