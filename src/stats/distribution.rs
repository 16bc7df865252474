//! Student's t and χ² as the laws need them: tails that stay accurate and quantiles by bisection.

use statrs::distribution::{Continuous, ContinuousCDF, Gamma, Normal, StudentsT};

/// Above this many degrees of freedom t is the normal law to eight digits.
const NORMAL: f64 = 1e7;

/// P(T > x) of Student's t with `df` > 0 degrees of freedom.
pub fn t_upper(x: f64, df: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, df) {
        Ok(t) if df < NORMAL => t.sf(x),
        _ => Normal::standard().sf(x),
    }
}

/// x with P(T > x) = `tail`, for `tail` in (0, 0.5].
pub fn t_quantile(tail: f64, df: f64) -> f64 {
    root(|x| t_upper(x, df) - tail)
}

/// The x ≥ 0 at which the falling function `f` crosses zero.
pub fn root(f: impl Fn(f64) -> f64) -> f64 {
    let mut high = 1.0;
    while f(high) > 0.0 && high < 1e12 {
        high *= 2.0;
    }
    let low = if high > 1.0 { 0.5 * high } else { 0.0 };
    between(&f, low, high)
}

/// Chandrupatla's method (1997): inverse quadratic steps where three values lie well for one, else halving.
fn between(f: &impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    let (mut a, mut b) = (high, low);
    let (mut fa, mut fb) = (f(a), f(b));
    if fb <= 0.0 || fa >= 0.0 {
        return if fb <= 0.0 { b } else { a };
    }
    let mut step = 0.5;
    loop {
        let x = a + step * (b - a);
        let fx = f(x);
        // c: the end that x replaces.
        let (c, fc) = if (fx > 0.0) == (fa > 0.0) { (a, fa) } else { (b, fb) };
        if (fx > 0.0) != (fa > 0.0) {
            (b, fb) = (a, fa);
        }
        (a, fa) = (x, fx);
        let (best, least) = if fa.abs() < fb.abs() { (a, fa) } else { (b, fb) };
        let width = (b - a).abs();
        if least == 0.0 || width <= 1e-10 * best.abs().max(f64::MIN_POSITIVE) {
            return best;
        }
        let (xi, phi) = ((a - b) / (c - b), (fa - fb) / (fc - fb));
        step = match phi * phi < xi && (1.0 - phi).powi(2) < 1.0 - xi {
            true => {
                (fa / (fb - fa)) * (fc / (fb - fc))
                    + ((c - a) / (b - a)) * (fa / (fc - fa)) * (fb / (fc - fb))
            }
            false => 0.5,
        };
        // No closer to an end than the tolerance, so that both ends move.
        let least = (0.25e-10 * best.abs() / width).min(0.5);
        step = step.clamp(least, 1.0 - least);
    }
}

/// Nodes and weights of E[f(G)], G = χ²_ν/ν: the trapezoid rule in ln G, whose integrand decays on both
/// sides, so that 240 nodes give ten digits even where f looks only at the far tail.
pub fn mean_square_nodes(df: f64) -> Vec<(f64, f64)> {
    let Ok(law) = Gamma::new(0.5 * df, 0.5 * df) else { return vec![(1.0, 1.0)] };
    let (low, high) = (-70.0 / df, (1.0 + 80.0 / df).ln() + 0.5);
    const NODES: usize = 240;
    let step = (high - low) / (NODES - 1) as f64;
    let node = |k: usize| {
        let x = low + step * k as f64;
        (x.exp(), x.exp() * law.pdf(x.exp()))
    };
    let nodes: Vec<(f64, f64)> = (0..NODES).map(node).collect();
    let total: f64 = nodes.iter().map(|n| n.1).sum();
    // What weighs less than this cannot move a tail that anyone reports.
    nodes.into_iter().map(|(g, w)| (g, w / total)).filter(|n| n.1 > 1e-15).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_printed_tables() {
        for (df, table) in [(1.0, 12.7062), (2.0, 4.30265), (4.0, 2.77645), (30.0, 2.04227), (1e9, 1.959964)]
        {
            assert!((t_quantile(0.025, df) / table - 1.0).abs() < 1e-5, "df {df}");
        }
    }

    #[test]
    fn roots_are_found_in_few_steps_wherever_they_lie() {
        let steps = std::cell::Cell::new(0);
        type Falling = fn(f64) -> f64;
        let cases: [(f64, Falling); 5] = [
            (0.3, |x| 0.3 - x),
            (1e-7, |x| 1e-7 - x),
            (636.619_248_7, |x| t_upper(x, 1.0) - 0.0005),
            (6.361_340_9, |x| t_upper(x, 1e9) - 1e-10),
            (2.0, |x| (8.0 - x.powi(3)) * 1e-6),
        ];
        for (at, f) in cases {
            steps.set(0);
            let found = root(|x| {
                steps.set(steps.get() + 1);
                f(x)
            });
            assert!((found / at - 1.0).abs() < 1e-7, "{at}: {found}");
            assert!(steps.get() < 45, "{at}: {} steps", steps.get());
        }
    }

    #[test]
    fn a_normal_over_an_estimated_spread_is_students_t() {
        // E_G[P(Z > x √G)] = P(T_ν > x): the definition of t, for tails from 0.3 down to 1e-9.
        for df in [1.0, 2.0, 4.0, 9.0] {
            for x in [0.5, 2.0, 8.0] {
                let mixed: f64 =
                    mean_square_nodes(df).iter().map(|(g, w)| w * t_upper(x * g.sqrt(), 1e9)).sum();
                let exact = t_upper(x, df);
                assert!((mixed / exact - 1.0).abs() < 1e-6, "df {df} x {x}: {mixed} {exact}");
            }
        }
    }
}
