//! Equivalence where few prompts differ: the variance and the tail that the margin itself would bring.

use statrs::distribution::{Discrete, Poisson};
use statrs::function::gamma::checked_gamma_ur;

use super::{Law, Paired};

/// Of more events than this a normal tail is as good.
const FEW: f64 = 200.0;

/// Prompts on which the arms differ, as events of one size: what a difference as large as the margin would consist of.
///
/// A variance estimated from a few events (none, one) is far below that of a world in which the arms do differ by the
/// margin, so that two one-sided tests on it find equivalence up to four times too often. Here the events are a
/// compound Poisson process: rates of its two signs a prompt, jumps as large as those seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Events {
    /// Events for arm a and for arm b, a prompt: Σ|J|/(C j) over either sign, J the difference on a prompt, mean of the seeds.
    pub rates: [f64; 2],
    /// j = ΣJ²/Σ|J|: 1 where right and wrong turn under all seeds together, 1/S where each seed errs on prompts of its own.
    pub jump: f64,
    /// Every value is a share: then a prompt may differ by 1 though none was seen to.
    pub shares: bool,
}

impl Events {
    /// Where nothing differs a jump is taken to be 1, as of right and wrong under all seeds.
    pub fn of(design: &Paired) -> Self {
        let (sums, sizes) = design.sums();
        let (s, c) = (design.seeds() as f64, design.clusters());
        let scale = c as f64 / (s * sizes.iter().sum::<f64>());
        let mut jumps = vec![0.0; c];
        sums.iter().enumerate().for_each(|(k, t)| jumps[k % c] += scale * t);
        let total: f64 = jumps.iter().map(|j| j.abs()).sum();
        if total == 0.0 {
            return Self { rates: [0.0; 2], jump: 1.0, shares: design.shares() };
        }
        let jump = jumps.iter().map(|j| j * j).sum::<f64>() / total;
        let rate = |sign: f64| jumps.iter().map(|j| (sign * j).max(0.0)).sum::<f64>() / (jump * c as f64);
        Self { rates: [rate(1.0), rate(-1.0)], jump, shares: design.shares() }
    }

    /// p of |θ| ≥ `margin`: the larger of two one-sided tests ([`Bound::p_beyond`]).
    pub fn p_equivalence(&self, law: &Law, margin: f64, prompts: usize) -> f64 {
        let beyond = |sign: f64| {
            let gap = margin - sign * law.difference;
            self.bound(sign, margin, prompts).p_beyond(law, gap)
        };
        beyond(1.0).max(beyond(-1.0))
    }

    /// Were the true difference `margin` on the side of `sign`, with `prompts` of them: Poisson counts (n₁, n₂) whose
    /// expectations differ by μ = C margin/j, most likely (μ + λ, λ) with 2λ² + (2μ − n₁ − n₂) λ − μ n₂ = 0.
    pub(super) fn bound(&self, sign: f64, margin: f64, prompts: usize) -> Bound {
        let [a, b] = self.rates.map(|rate| rate * prompts as f64);
        let (toward, away) = if sign < 0.0 { (b, a) } else { (a, b) };
        let mu = margin * prompts as f64 / self.jump;
        let linear = 2.0 * mu - toward - away;
        let lambda = 0.25 * ((linear * linear + 8.0 * mu * away).sqrt() - linear);
        let unseen = if self.shares { (-margin * prompts as f64).exp() } else { 0.0 };
        Bound {
            toward: mu + lambda,
            away: lambda,
            net: toward - away,
            weight: self.jump / prompts as f64,
            unseen,
        }
    }
}

/// What a bound of equivalence would make of the events.
pub(super) struct Bound {
    /// Events expected towards it, and away from it.
    toward: f64,
    away: f64,
    /// Those seen towards it, less those away from it.
    net: f64,
    /// What one adds to the mean.
    weight: f64,
    /// How often so many prompts show none of those that would differ by 1, were the margin made of them.
    unseen: f64,
}

impl Bound {
    /// The same, had the mean come out `further` towards the bound than it did.
    pub(super) fn nearer(self, further: f64) -> Self {
        Self { net: self.net + further / self.weight, ..self }
    }

    /// p of θ beyond this bound, `gap` ahead of `law`'s difference: the tail of the counts, or that of `law` where it is
    /// larger; of shares no less than e^(−C margin), since what was seen says nothing of prompts unlike those seen. The law has at least the variance of the counts at the bound (a score test, as Tango 1998 for paired
    /// proportions) but where these are few and the seeds do not differ: a normal tail is far longer than theirs then.
    pub(super) fn p_beyond(&self, law: &Law, gap: f64) -> f64 {
        let raised = law.at_least((self.toward + self.away) * self.weight * self.weight);
        let p = match self.tail() {
            Some(tail) if law.between_seeds <= 0.0 => tail.max(law.p_beyond(gap)),
            Some(tail) => tail.max(raised.p_beyond(gap)),
            None => raised.p_beyond(gap),
        };
        p.max(self.unseen)
    }

    /// P(N₁ − N₂ ≤ net), where few are expected. Between whole counts, of jumps that differ, it is interpolated.
    fn tail(&self) -> Option<f64> {
        if self.toward + self.away > FEW {
            return None;
        }
        // P(N₁ ≤ k) = Q(k + 1, E N₁), which is 1 where none is expected.
        let at_most =
            |k: f64| if k > -1.0 { checked_gamma_ur(k + 1.0, self.toward).unwrap_or(1.0) } else { 0.0 };
        let Ok(away) = Poisson::new(self.away) else { return Some(at_most(self.net)) };
        let most = (self.away + 12.0 * self.away.sqrt() + 30.0) as u64;
        Some((0..most).map(|n| away.pmf(n) * at_most(self.net + n as f64)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Components;

    /// One seed, C prompts, of which the first `up` are +1 and the next `down` −1.
    fn one_seed(c: usize, up: usize, down: usize) -> Paired {
        let a = (0..c).map(|i| f64::from(u8::from(i < up))).collect();
        let b = (0..c).map(|i| f64::from(u8::from((up..up + down).contains(&i)))).collect();
        Paired::new(&[a], &[b], &(0..c).collect::<Vec<_>>()).unwrap()
    }

    fn p(design: &Paired) -> f64 {
        Events::of(design).p_equivalence(&Components::law(design), 0.02, design.clusters())
    }

    #[test]
    fn few_answers_that_differ_are_poisson_counts() {
        // μ = 0.02 · 200 = 4: e⁻⁴ and 5 e⁻⁴ by hand.
        assert!((p(&one_seed(200, 0, 0)) - (-4.0f64).exp()).abs() < 1e-12);
        assert!((p(&one_seed(200, 1, 0)) - 5.0 * (-4.0f64).exp()).abs() < 1e-9);
        assert_eq!(p(&one_seed(200, 1, 0)), p(&one_seed(200, 0, 1)));
        // SciPy 1.17: λ = (√(36 + 32) − 6)/4 = 0.561553, skellam.cdf(0, 4 + λ, λ).
        assert!((p(&one_seed(200, 1, 1)) - 0.046_584_680_7).abs() < 1e-9);
    }

    #[test]
    fn jumps_tell_answers_lost_under_all_seeds_from_those_of_one() {
        let b = vec![vec![1.0; 90]; 3];
        let lose = |of: &dyn Fn(usize) -> usize| {
            let mut a = b.clone();
            (0..3).for_each(|s| a[s][of(s)] = 0.0);
            Events::of(&Paired::new(&a, &b, &(0..90).collect::<Vec<_>>()).unwrap())
        };
        let (same, own) = (lose(&|_| 7), lose(&|s| 7 + s));
        assert!((same.jump - 1.0).abs() < 1e-12 && (same.rates[1] * 90.0 - 1.0).abs() < 1e-12, "{same:?}");
        assert!((own.jump - 1.0 / 3.0).abs() < 1e-12 && (own.rates[1] * 90.0 - 3.0).abs() < 1e-12, "{own:?}");
    }
}
