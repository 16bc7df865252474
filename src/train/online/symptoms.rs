//! What goes wrong in learning from samples, by name: a run that shows one of these ends, and its row says which.

use serde::{Deserialize, Serialize};

/// Rollouts in a row before a constant reward, nothing but empty samples, or samples that never end are a failure:
/// one such batch is chance.
const PATIENCE: u64 = 5;
/// Samples without an end in those rollouts, at the least: with a short limit and few samples a policy that ends
/// one in a hundred often shows none.
const ENDLESS: usize = 256;
/// Scores that differ by less than this are one number, rounded differently.
const ROUNDING: f64 = 1e-6;
/// Nats a token, of log π/π_ref over a rollout: a policy there has nothing left of its reference.
const MOST_KL: f64 = 20.0;

/// Counts of rollouts in a row, and of samples in a row that did not end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Symptoms {
    constant: u64,
    empty: u64,
    endless: usize,
    endless_rollouts: u64,
    idle: u64,
}

/// A rollout as the symptoms see it.
pub struct Seen<'a> {
    pub rewards: &'a [f64],
    /// Shares of samples.
    pub empty: f64,
    pub unfinished: f64,
    /// The samples are the policy's own: given ones may be of one class, and are as they are.
    pub own: bool,
}

impl Symptoms {
    /// `Some`: the run is to end, and this is why. A reward that is not finite ends it at once.
    pub fn look(&mut self, seen: &Seen<'_>) -> Option<String> {
        if let Some((i, r)) = seen.rewards.iter().enumerate().find(|(_, r)| !r.is_finite()) {
            return Some(format!("the reward of sample {} of {} is {r}", i + 1, seen.rewards.len()));
        }
        let first = seen.rewards.first().copied().unwrap_or(0.0);
        let same = |r: &f64| (r - first).abs() <= ROUNDING * first.abs().max(1.0);
        let constant = seen.own && seen.rewards.len() > 1 && seen.rewards.iter().all(same);
        let count = |held: bool, n: u64| if held { n + 1 } else { 0 };
        self.constant = count(constant, self.constant);
        self.empty = count(seen.own && seen.empty == 1.0, self.empty);
        let endless = seen.own && seen.unfinished == 1.0;
        self.endless_rollouts = count(endless, self.endless_rollouts);
        self.endless = if endless { self.endless + seen.rewards.len() } else { 0 };
        let n = PATIENCE;
        if self.empty >= n {
            return Some(format!("every sample of the last {n} rollouts is empty"));
        }
        if self.endless_rollouts >= n && (self.endless >= ENDLESS || self.constant >= n) {
            return Some(format!("none of the last {} samples ended before its limit", self.endless));
        }
        if self.constant >= n {
            return Some(format!("the reward was {first} for every sample of each of the last {n} rollouts"));
        }
        None
    }

    /// Takes a look at how far the policy is from its reference, nats a token; `Some` as for [`Symptoms::look`].
    pub fn far(&self, kl: f64) -> Option<String> {
        (!kl.is_finite() || kl > MOST_KL)
            .then(|| format!("the KL divergence from the reference exploded: {kl:.3} nats a token"))
    }

    /// Takes note of whether a rollout gave anything to learn from; `Some` as for [`Symptoms::look`].
    pub fn learned(&mut self, anything: bool) -> Option<String> {
        self.idle = if anything { 0 } else { self.idle + 1 };
        let n = PATIENCE;
        (self.idle >= n)
            .then(|| format!("in each of the last {n} rollouts no two samples of a prompt differ in reward"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rewards: &[f64]) -> Seen<'_> {
        Seen { rewards, empty: 0.0, unfinished: 0.0, own: true }
    }

    #[test]
    fn each_failure_is_named_and_a_single_odd_batch_is_none() {
        let good = [0.0, 1.0];
        const MANY: [f64; ENDLESS / PATIENCE as usize + 1] = [0.5; ENDLESS / PATIENCE as usize + 1];
        let mut s = Symptoms::default();
        assert_eq!(s.look(&seen(&good)), None);
        assert!(s.look(&seen(&[0.0, f64::NAN])).unwrap().contains("reward of sample 2 of 2 is NaN"));
        assert!(s.far(25.0).unwrap().contains("KL"));
        assert!(s.far(f64::NAN).unwrap().contains("KL") && s.far(0.1).is_none());
        type Case = (fn() -> Seen<'static>, &'static str);
        let cases: [Case; 4] = [
            (|| seen(&[0.5, 0.5]), "the reward was 0.5"),
            (|| seen(&[-3.0, -3.000001, -2.999999]), "the reward was -3"),
            (|| Seen { empty: 1.0, ..seen(&[0.0, 1.0]) }, "is empty"),
            (|| Seen { unfinished: 1.0, ..seen(&MANY) }, "ended before its limit"),
        ];
        for (case, says) in cases {
            let mut s = Symptoms::default();
            for _ in 0..PATIENCE - 1 {
                assert_eq!(s.look(&case()), None);
            }
            let mut interrupted = s.clone();
            assert!(s.look(&case()).unwrap().contains(says));
            assert_eq!(interrupted.look(&seen(&good)), None);
            assert_eq!(interrupted.look(&case()), None, "a good rollout starts the count anew");
        }
    }
}
