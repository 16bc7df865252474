//! How many prompts a rollout may still take: the cost of samples is known only when they are drawn.

use serde::{Deserialize, Serialize};

use crate::plan::Budget;
use crate::train::cost::amount;

/// The cost of a prompt in the budget's currency, from the rollouts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    spent: f64,
    prompts: f64,
}

impl Estimate {
    pub fn observe(&mut self, spent: f64, prompts: usize) {
        // The latest rollouts weigh most: lengths change as the policy does.
        self.spent = 0.5 * self.spent + spent;
        self.prompts = 0.5 * self.prompts + prompts as f64;
    }

    /// At most `most`, and no more than fit what is left of the budget; 0: the run ends. Before the first rollout
    /// nothing is known, and a whole one is taken. Where less than `most` is left, three quarters of it: what they cost
    /// is known afterwards, and a smaller last rollout corrects for it.
    pub fn fitting(&self, budget: Budget, spent: f64, most: usize) -> usize {
        let left = amount(budget) - spent;
        if left <= 0.0 {
            return 0;
        }
        if matches!(budget, Budget::Steps(_)) || self.prompts == 0.0 || self.spent <= 0.0 {
            return most;
        }
        let fit = (left * self.prompts / self.spent).round() as usize;
        if fit < most { (0.75 * fit as f64).ceil() as usize } else { most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rollout_takes_what_fits_to_the_nearest_prompt() {
        let mut estimate = Estimate::default();
        let budget = Budget::Tokens(1000);
        assert_eq!(estimate.fitting(budget, 0.0, 8), 8, "nothing known yet");
        estimate.observe(800.0, 8);
        assert_eq!(estimate.fitting(budget, 800.0, 8), 2);
        assert_eq!(estimate.fitting(budget, 740.0, 8), 3);
        assert_eq!(estimate.fitting(budget, 200.0, 9), 6, "three quarters of 8");
        assert_eq!(estimate.fitting(budget, 200.0, 8), 8);
        assert_eq!(estimate.fitting(budget, 960.0, 8), 0);
        assert_eq!(estimate.fitting(budget, 1000.0, 8), 0);
        assert_eq!(estimate.fitting(Budget::Steps(5), 4.0, 8), 8);
    }
}
