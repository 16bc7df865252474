//! From a row of logits to the next token.
//!
//! The order of the steps is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p, draw.

use rand::{Rng, RngExt};

use super::decoding::Decoding;
use crate::base::error::{Error, Result, anyhow};
use crate::kernels::draw;

/// The token drawn, and log π of it: π as the model has it, at temperature 1 with nothing filtered or penalised.
///
/// `logits` (v) are used up; `seen` are the prompt's and the completion's tokens so
/// far. One uniform number is drawn from `rng` unless decoding is greedy.
///
/// # Errors
/// As [`sample`].
pub fn sample_with_logp(
    logits: &mut [f32],
    seen: &[u32],
    decoding: &Decoding,
    rng: &mut impl Rng,
) -> Result<(u32, f64)> {
    let mut given = logits.to_vec();
    let (token, sums) = drawn(logits, seen, decoding, rng)?;
    let place = token as usize;
    let logp = match sums {
        Some(sums) => draw::logp_of_sums(&given, place, &sums),
        None => draw::logp(&mut given, place),
    };
    Ok((token, logp))
}

/// The token, with the sums of [`draw::weigh`] where the model's own distribution was weighed for the draw.
fn drawn(
    logits: &mut [f32],
    seen: &[u32],
    decoding: &Decoding,
    rng: &mut impl Rng,
) -> Result<(u32, Option<Vec<f64>>)> {
    penalise(logits, seen, decoding.repetition_penalty);
    let best = argmax(logits)?;
    if decoding.greedy() {
        return Ok((best, None));
    }
    let (max, u) = (logits[best as usize], rng.random::<f64>());
    if decoding.keeps_all() {
        let sums = draw::weigh(logits, max, (1.0 / decoding.temperature) as f32);
        let token = draw::place(logits, &sums, u) as u32;
        let own = decoding.temperature == 1.0 && decoding.repetition_penalty == 1.0;
        return Ok((token, own.then_some(sums)));
    }
    Ok((choose(&filter(logits, max, decoding), u), None))
}

/// A token that may be drawn, with its probability up to a common factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub token: u32,
    /// exp((logit − max) / T).
    pub weight: f64,
}

/// The tokens that survive top-k, top-p and min-p, in order of id.
pub fn filter(logits: &[f32], max: f32, decoding: &Decoding) -> Vec<Candidate> {
    let kth = kth_largest(logits, decoding.top_k);
    let weight = |l: f32| (f64::from(l - max) / decoding.temperature).exp();
    let mut kept: Vec<Candidate> = (0u32..)
        .zip(logits)
        .filter(|(_, l)| **l >= kth)
        .map(|(token, l)| Candidate { token, weight: weight(*l) })
        .collect();
    if decoding.top_p < 1.0 {
        keep_nucleus(&mut kept, decoding.top_p);
    }
    // The most probable token has weight 1, so the bound needs no normalisation.
    kept.retain(|c| c.weight >= decoding.min_p && c.weight > 0.0);
    kept
}

fn penalise(logits: &mut [f32], seen: &[u32], penalty: f64) {
    if penalty == 1.0 {
        return;
    }
    let (mut tokens, penalty) = (seen.to_vec(), penalty as f32);
    tokens.sort_unstable();
    tokens.dedup();
    for token in tokens {
        if let Some(l) = logits.get_mut(token as usize) {
            *l = if *l > 0.0 { *l / penalty } else { *l * penalty };
        }
    }
}

fn argmax(logits: &[f32]) -> Result<u32> {
    match draw::argmax(logits) {
        Some((best, max)) if max.is_finite() => Ok(best as u32),
        Some(_) => Err(nothing_finite(logits.len())),
        None => Err(nan(logits.iter().position(|l| l.is_nan()).unwrap_or(0))),
    }
}

pub(super) fn nan(token: usize) -> Error {
    anyhow!("the logit of token {token} is NaN: the model's weights are broken")
}

pub(super) fn nothing_finite(logits: usize) -> Error {
    anyhow!("no finite logit among {logits}")
}

/// The k-th largest logit; −∞ where k is 0 or reaches the vocabulary.
fn kth_largest(logits: &[f32], k: usize) -> f32 {
    if k == 0 || k >= logits.len() {
        return f32::NEG_INFINITY;
    }
    let mut values = logits.to_vec();
    *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Keeps the most probable candidates until their share reaches `top_p`; the order of ids stays.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f64) {
    let total: f64 = candidates.iter().map(|c| c.weight).sum();
    let order = |a: &Candidate, b: &Candidate| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token));
    // A nucleus is usually small: the most probable few are sorted, and more only where these fall short of top_p.
    let mut most = 32;
    loop {
        most = most.min(candidates.len());
        if most < candidates.len() {
            candidates.select_nth_unstable_by(most, order);
        }
        candidates[..most].sort_unstable_by(order);
        let mut share = 0.0;
        let reached = candidates[..most].iter().position(|c| {
            share += c.weight / total;
            share >= top_p
        });
        match reached {
            Some(last) => candidates.truncate(last + 1),
            None if most < candidates.len() => {
                most *= 8;
                continue;
            }
            None => {}
        }
        break;
    }
    candidates.sort_unstable_by_key(|c| c.token);
}

/// The candidate in whose stretch of the summed weights the uniform number `u` in [0, 1) falls.
fn choose(candidates: &[Candidate], u: f64) -> u32 {
    let total: f64 = candidates.iter().map(|c| c.weight).sum();
    let mut left = u * total;
    for c in candidates {
        if left < c.weight {
            return c.token;
        }
        left -= c.weight;
    }
    candidates.last().map_or(0, |c| c.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(logits: &mut [f32], seen: &[u32], decoding: &Decoding, rng: &mut impl Rng) -> Result<u32> {
        Ok(sample_with_logp(logits, seen, decoding, rng)?.0)
    }
    use crate::base::seed::rng;

    // log of 0.5, 0.25, 0.125, 0.0625, 0.0625 in an order that is not theirs.
    const PROBS: [f64; 5] = [0.0625, 0.5, 0.125, 0.25, 0.0625];

    fn logits() -> Vec<f32> {
        PROBS.iter().map(|p| p.ln() as f32).collect()
    }

    fn sampling() -> Decoding {
        Decoding { temperature: 1.0, ..Decoding::default() }
    }

    fn kept(decoding: &Decoding) -> Vec<u32> {
        let logits = logits();
        filter(&logits, logits[1], decoding).iter().map(|c| c.token).collect()
    }

    #[test]
    fn each_filter_keeps_what_its_definition_says() {
        assert_eq!(kept(&sampling()), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&Decoding { top_k: 2, ..sampling() }), [1, 3]);
        // The fourth and the fifth are equal: both stay, as in Hugging Face.
        assert_eq!(kept(&Decoding { top_k: 4, ..sampling() }), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&Decoding { top_p: 0.5, ..sampling() }), [1]);
        assert_eq!(kept(&Decoding { top_p: 0.6, ..sampling() }), [1, 3]);
        // A tie at the edge of the nucleus goes to the lower id.
        assert_eq!(kept(&Decoding { top_p: 0.93, ..sampling() }), [0, 1, 2, 3]);
        assert_eq!(kept(&Decoding { min_p: 0.3, ..sampling() }), [1, 3]);
        // min-p is a share of the most probable after temperature: 0.25/0.5 becomes its square root at T = 2.
        assert_eq!(kept(&Decoding { min_p: 0.6, temperature: 2.0, ..sampling() }), [1, 3]);
        // top-p counts what top-k left: 0.5 / 0.75 reaches 0.6.
        assert_eq!(kept(&Decoding { top_k: 2, top_p: 0.6, ..sampling() }), [1]);
    }

    #[test]
    fn a_wide_nucleus_is_that_of_a_full_sort() {
        let weight = |i: u32| f64::from((i * 7919) % 503 + 1);
        let all: Vec<Candidate> = (0..700).map(|token| Candidate { token, weight: weight(token) }).collect();
        for top_p in [0.01, 0.1, 0.5, 0.9, 0.999, 1.0] {
            let total: f64 = all.iter().map(|c| c.weight).sum();
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
            let mut share = 0.0;
            let keep = sorted.iter().position(|c| {
                share += c.weight / total;
                share >= top_p
            });
            sorted.truncate(keep.map_or(700, |last| last + 1));
            sorted.sort_by_key(|c| c.token);
            let mut kept = all.clone();
            keep_nucleus(&mut kept, top_p);
            assert_eq!(kept, sorted, "top_p {top_p}");
        }
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        for temperature in [1.0, 0.5] {
            let decoding = Decoding { temperature, ..Decoding::default() };
            let mut rng = rng(0, "sampler-test");
            let n = 40_000;
            let mut counts = [0.0; 5];
            for _ in 0..n {
                counts[sample(&mut logits(), &[], &decoding, &mut rng).unwrap() as usize] += 1.0;
            }
            let total: f64 = PROBS.iter().map(|p| p.powf(1.0 / temperature)).sum();
            let chi2: f64 = (0..5)
                .map(|i| {
                    let expected = PROBS[i].powf(1.0 / temperature) / total * f64::from(n);
                    (counts[i] - expected) * (counts[i] - expected) / expected
                })
                .sum();
            assert!(chi2 < 18.5, "chi-squared {chi2} at T = {temperature}, 4 degrees of freedom, p = 0.001");
        }
    }

    #[test]
    fn the_penalty_pushes_seen_tokens_down_on_both_sides_of_zero_and_once() {
        let mut logits = vec![2.0, -1.0, 1.5];
        penalise(&mut logits, &[0, 1, 0], 2.0);
        assert_eq!(logits, [1.0, -2.0, 1.5]);
        let greedy = Decoding { repetition_penalty: 2.0, ..Decoding::default() };
        assert_eq!(sample(&mut [2.0, -1.0, 1.5], &[0], &greedy, &mut rng(0, "t")).unwrap(), 2);
    }

    #[test]
    fn a_broken_model_is_an_error_and_a_greedy_tie_goes_to_the_lower_id() {
        let greedy = Decoding::default();
        assert_eq!(sample(&mut [0.0, 3.0, 3.0], &[], &greedy, &mut rng(0, "t")).unwrap(), 1);
        assert!(sample(&mut [0.0, f32::NAN], &[], &greedy, &mut rng(0, "t")).is_err());
        assert!(sample(&mut [f32::NEG_INFINITY; 2], &[], &greedy, &mut rng(0, "t")).is_err());
        assert!(Decoding { top_p: 0.0, ..greedy.clone() }.check().is_err());
        assert!(Decoding { temperature: f64::NAN, ..greedy }.check().is_err());
    }
}
