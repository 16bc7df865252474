//! How much of a comparison's noise is the judge's.

use std::collections::HashMap;

use crate::plan::BASE_ARM;
use crate::record::{ComparisonRow, JudgmentRow};

/// What metrics of matches begin with; the opponent's name follows.
const AGAINST: &str = "win_rate_";

/// The valid judgments of a candidate against a baseline.
#[derive(Default)]
struct Turned {
    turned: f64,
    valid: f64,
    /// Whether any was asked in both orders.
    both_orders: bool,
}

/// Takes the judge's part out of `variance_residual`, where a judge was asked in both orders.
///
/// A preference is the mean of two answers x₁, x₂ ∈ {0, 1}; the variance of that mean is estimated without bias by
/// (x₁ − x₂)²/4, which is ¼ where the answer turned with the order (the match is a tie then) and 0 elsewhere, also where two
/// equal texts tied unasked. Summed over the two arms, and over a prompt's examples as the difference is. A preference for one place raises it too, though it
/// cancels in the mean: read it as an upper bound, and it is cut at the residual. Rows of other metrics, of judges that
/// see no order and of a single seed are left as they are.
pub fn split_judge(rows: &mut [ComparisonRow], judgments: &[JudgmentRow]) {
    /// Suite, candidate, baseline.
    type Match<'j> = (&'j str, &'j str, &'j str);
    let mut turned: HashMap<Match<'_>, Turned> = HashMap::new();
    for j in judgments.iter().filter(|j| j.preference.is_some()) {
        let seen = turned.entry((&j.suite, &j.candidate, &j.baseline)).or_default();
        seen.turned += f64::from(u8::from(j.flipped == Some(true)));
        seen.valid += 1.0;
        seen.both_orders |= j.flipped.is_some();
    }
    let noise = |row: &ComparisonRow, arm: &str| -> Option<f64> {
        let opponent = row.metric.strip_prefix(AGAINST)?;
        match turned.get(&(row.suite.as_str(), arm, opponent)) {
            Some(seen) => seen.both_orders.then(|| 0.25 * seen.turned / seen.valid),
            // Against itself the base is even, whoever judges.
            None => (arm == BASE_ARM && opponent == BASE_ARM).then_some(0.0),
        }
    };
    for row in rows {
        let both = noise(row, &row.arm_a).zip(noise(row, &row.arm_b));
        let (Some((a, b)), Some(residual)) = (both, row.variance_residual) else { continue };
        let judge = ((a + b) * row.clusters as f64 / row.examples as f64).min(residual);
        (row.variance_judge, row.variance_residual) = (Some(judge), Some(residual - judge));
    }
}
