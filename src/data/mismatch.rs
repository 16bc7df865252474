//! Mismatched completions for KTO's reference point.

use crate::plan::Z0;

/// For each of n examples, the index of the example whose completion it takes.
///
/// A rotation by one: no example keeps its own, whatever n is (reversing the step would leave the middle
/// one of an odd number in place). Empty for [`Z0::Zero`], which needs no mismatched completions.
///
/// # Panics
/// If n < 2: one example alone cannot be mismatched.
pub fn mismatched(n: usize, z0: Z0) -> Vec<usize> {
    let shift = match z0 {
        Z0::Next => 1,
        Z0::Previous => n.saturating_sub(1),
        // It pairs within the whole data set, not within a step: see [`reversed`].
        Z0::Zero | Z0::Reversed => return Vec::new(),
    };
    assert!(n >= 2, "mismatched completions need a step of at least 2 examples, not {n}");
    (0..n).map(|i| (i + shift) % n).collect()
}

/// Rows that LLaMA-Factory preprocesses together (`preprocessing_batch_size`).
const BLOCK: usize = 1000;

/// The partner of example i of n for [`Z0::Reversed`]: the data set's completions in reversed order within blocks of
/// 1000, settled before training (LLaMA-Factory, `data/processor/feedback.py`). The middle of an odd block keeps its
/// own completion, there as here.
pub fn reversed(i: usize, n: usize) -> usize {
    let start = i / BLOCK * BLOCK;
    let end = (start + BLOCK).min(n);
    end - 1 - (i - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_his_own_completion_and_each_is_used_once() {
        for n in 2..12 {
            for z0 in [Z0::Next, Z0::Previous] {
                let mut taken = mismatched(n, z0);
                assert!(taken.iter().enumerate().all(|(i, &j)| i != j), "n = {n}");
                taken.sort_unstable();
                assert_eq!(taken, (0..n).collect::<Vec<_>>());
            }
        }
        assert_eq!(mismatched(3, Z0::Next), [1, 2, 0]);
        assert_eq!(mismatched(3, Z0::Previous), [2, 0, 1]);
        assert!(mismatched(3, Z0::Zero).is_empty());
    }

    #[test]
    fn reversed_partners_stay_within_their_block_and_pair_up() {
        assert_eq!((0..5).map(|i| reversed(i, 5)).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        assert_eq!(
            [reversed(0, 2500), reversed(999, 2500), reversed(1000, 2500), reversed(2000, 2500)],
            [999, 0, 1999, 2499]
        );
        assert!((0..2500).all(|i| reversed(reversed(i, 2500), 2500) == i));
    }
}
