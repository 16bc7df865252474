//! What drawing a token from a row of logits needs, without looking at a number twice.

use super::cpu;
use super::real::Real;
use super::reduce;

/// Numbers whose sum is kept, so that a draw skips over them.
pub const CHUNK: usize = 64;

/// Below this exponent a weight counts as 0.
const NOTHING: f32 = -87.0;

/// The largest number and its place, the first among equals; `None` if any is NaN or there is none.
pub fn argmax(row: &[f32]) -> Option<(usize, f32)> {
    let (max, broken) = cpu::simd(
        #[inline(always)]
        || {
            let broken = row.iter().fold(0u32, |n, x| n | u32::from(x.is_nan()));
            (reduce::max(row), broken > 0)
        },
    );
    if broken { None } else { row.iter().position(|x| *x == max).map(|at| (at, max)) }
}

/// Replaces each x by exp((x − max)·`factor`); the sum of every [`CHUNK`] of them.
pub fn weigh(row: &mut [f32], max: f32, factor: f32) -> Vec<f64> {
    let mut sums = Vec::with_capacity(row.len().div_ceil(CHUNK));
    cpu::simd(
        #[inline(always)]
        || {
            for chunk in row.chunks_mut(CHUNK) {
                for x in chunk.iter_mut() {
                    let exponent = (*x - max) * factor;
                    *x = if exponent < NOTHING { 0.0 } else { Real::exp(exponent) };
                }
                sums.push(f64::from(reduce::sum(chunk)));
            }
        },
    );
    sums
}

/// log softmax of the row at `place`, in nats; the row is used up.
pub fn logp(row: &mut [f32], place: usize) -> f64 {
    let (x, max) = (row[place], reduce::max(row));
    let sums = weigh(row, max, 1.0);
    normalised(x, max, &sums)
}

/// [`logp`] of a row of which [`weigh`] has made `sums`, at factor 1.
pub fn logp_of_sums(row: &[f32], place: usize, sums: &[f64]) -> f64 {
    normalised(row[place], reduce::max(row), sums)
}

fn normalised(x: f32, max: f32, sums: &[f64]) -> f64 {
    f64::from(x - max) - sums.iter().sum::<f64>().ln()
}

/// The place in whose stretch of the summed weights the number `u` in [0, 1) falls, as [`weigh`] left them.
pub fn place(weights: &[f32], sums: &[f64], u: f64) -> usize {
    let mut left = u * sums.iter().sum::<f64>();
    let mut last = 0;
    for (chunk, (weights, &sum)) in weights.chunks(CHUNK).zip(sums).enumerate() {
        if left >= sum {
            left -= sum;
            continue;
        }
        for (i, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            last = chunk * CHUNK + i;
            if left < f64::from(weight) {
                return last;
            }
            left -= f64::from(weight);
        }
    }
    // Rounding left a little beyond the end.
    if weights.get(last).is_some_and(|w| *w > 0.0) {
        return last;
    }
    weights.iter().rposition(|w| *w > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_found_and_nan_is_not_passed_over() {
        let mut row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32).collect();
        assert_eq!(argmax(&row), Some((30, 100.0)));
        row[999] = f32::NAN;
        assert_eq!(argmax(&row), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn a_log_prob_is_that_of_the_softmax() {
        let row: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 * 0.3 - 7.0).collect();
        let normaliser = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        for place in [0, 1, 30, 299] {
            let wanted = f64::from(row[place]) - normaliser;
            let found = logp(&mut row.clone(), place);
            assert!((found - wanted).abs() < 1e-5, "{found} against {wanted}");
        }
    }

    #[test]
    fn places_follow_the_summed_weights() {
        let logits: Vec<f32> = (0..300).map(|i| if i % 7 == 0 { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mut weights = logits.clone();
        let sums = weigh(&mut weights, 0.0, 2.0);
        let alive: Vec<usize> = (0..300).filter(|i| i % 7 != 0).collect();
        assert_eq!(sums.iter().sum::<f64>(), alive.len() as f64);
        for (nth, &wanted) in alive.iter().enumerate() {
            let u = (nth as f64 + 0.5) / alive.len() as f64;
            assert_eq!(place(&weights, &sums, u), wanted);
        }
        assert_eq!(place(&weights, &sums, 1.0), 299);
    }
}
