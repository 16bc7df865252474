//! Times of runs. What else runs on a machine slows some of an arm's runs and not others: where the report speaks of an
//! arm's speed it takes the median, and it says where runs of one arm took very different times.

use super::format::si;
use super::summary::median;
use super::view::View;

/// Runs of one arm whose times differ by more than this factor were not all made on an idle machine.
const UNEVEN: f64 = 1.5;

/// Median training time of an arm's runs, in seconds.
pub fn typical(view: &View<'_>, arm: &str) -> Option<f64> {
    let seconds = seconds(view, arm);
    (!seconds.is_empty()).then(|| median(&seconds))
}

/// `Runs of one arm took very different times (dpo 13.9 to 67.1 s): the machine was not idle …`, where some did.
pub fn uneven(view: &View<'_>) -> Option<String> {
    let range = |arm: &super::view::Arm| {
        let seconds = seconds(view, &arm.name);
        let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = seconds.iter().copied().fold(0.0, f64::max);
        (least > 0.0 && most > UNEVEN * least)
            .then(|| format!("{} {} to {} s", arm.name, si(least), si(most)))
    };
    let arms: Vec<String> = view.trained().filter_map(range).collect();
    (!arms.is_empty()).then(|| {
        format!(
            "Runs of one arm took very different times ({}): the machine was not idle beside all of them, so read times \
             and speeds with care.",
            arms.join(", ")
        )
    })
}

fn seconds(view: &View<'_>, arm: &str) -> Vec<f64> {
    view.runs(arm).iter().map(|(_, r)| r.train_seconds).filter(|s| s.is_finite()).collect()
}
