//! The first steps, held against the baseline's: two-sided, since a loss that falls too fast is a fault too
//! (MLPerf's reference convergence points refuse both).

use super::finding::{Finding, Kind};
use super::judge::Bench;
use super::side::{Repeat, Side};
use crate::record::{Direction, StepRow};
use crate::stats::gate::{Change, noise_bound, residual};

/// A column of `steps.csv` that is compared.
struct Signal {
    name: &'static str,
    of: fn(&StepRow) -> Option<f64>,
    /// Counts follow from data and masks alone and carry no rounding.
    count: bool,
}

const SIGNALS: [Signal; 12] = [
    signal("loss", |s| Some(s.loss)),
    signal("grad_norm", |s| Some(s.grad_norm)),
    signal("learning_rate", |s| Some(s.learning_rate)),
    signal("margin", |s| s.margin),
    signal("reward_chosen", |s| s.reward_chosen),
    signal("reward_rejected", |s| s.reward_rejected),
    signal("kl", |s| s.kl),
    count("policy_tokens", |s| Some(s.policy_tokens as f64)),
    count("completion_tokens", |s| Some(s.completion_tokens as f64)),
    count("kl_tokens", |s| Some(s.kl_tokens as f64)),
    count("desirable", |s| Some(s.desirable as f64)),
    count("undesirable", |s| Some(s.undesirable as f64)),
];

const fn signal(name: &'static str, of: fn(&StepRow) -> Option<f64>) -> Signal {
    Signal { name, of, count: false }
}

const fn count(name: &'static str, of: fn(&StepRow) -> Option<f64>) -> Signal {
    Signal { name, of, count: true }
}

/// Residuals of one signal, in units of the baseline's spread (counts: relative).
#[derive(Clone, Copy, Debug)]
struct Apart {
    max: f64,
    mean: f64,
}

/// One finding an arm: that of its worst signal.
pub(super) fn judge(bench: &Bench) -> Vec<Finding> {
    bench.arms().into_iter().map(|arm| one(bench, arm)).collect()
}

fn one(bench: &Bench, arm: &str) -> Finding {
    let config = &bench.config.trajectory;
    let seeds = bench.seeds(arm);
    let mut worst: Option<(f64, Finding)> = None;
    for signal in &SIGNALS {
        let each: Vec<Apart> = seeds.iter().filter_map(|s| sides_apart(bench, arm, *s, signal)).collect();
        let Some(all) = together(&each) else { continue };
        let (max, mean) =
            if signal.count { (config.counts, f64::INFINITY) } else { (config.max, config.mean) };
        // Several seeds and signals look for the worst: each gets its share of the error.
        let tail = bench.tail / (seeds.len() * SIGNALS.len()) as f64;
        let noise = noise(bench, arm, signal, tail);
        let verdict = verdict(all, noise, (max, mean));
        let rank = f64::from(u8::from(verdict == Change::Regressed)) * 2.0
            + f64::from(u8::from(verdict == Change::Inconclusive));
        let excess = (all.max / max.max(1e-12)).max(all.mean / mean.max(1e-12)).min(1e9);
        let place = rank * 1e12 + excess;
        if worst.as_ref().is_none_or(|(w, _)| place > *w) {
            worst = Some((place, finding(bench, arm, signal, all, noise, (max, mean), verdict)));
        }
    }
    worst.map_or_else(|| absent(bench, arm), |(_, finding)| finding)
}

fn verdict(apart: Apart, noise: Option<Apart>, (max, mean): (f64, f64)) -> Change {
    if apart.max <= max && apart.mean <= mean {
        return Change::Pass;
    }
    match noise {
        Some(n) if apart.max - n.max > max || apart.mean - n.mean > mean => Change::Regressed,
        _ => Change::Inconclusive,
    }
}

/// The worst step of any seed, and the mean over seeds.
fn together(each: &[Apart]) -> Option<Apart> {
    let n = each.len() as f64;
    (!each.is_empty()).then(|| Apart {
        max: each.iter().map(|a| a.max).fold(0.0, f64::max),
        mean: each.iter().map(|a| a.mean).sum::<f64>() / n,
    })
}

fn sides_apart(bench: &Bench, arm: &str, seed: u64, signal: &Signal) -> Option<Apart> {
    let steps = bench.config.trajectory.steps;
    let of = |side: &Side| series(&side.records.steps, arm, Some(seed), signal, steps);
    apart(&of(bench.baseline), &of(bench.candidate), signal)
}

/// The first steps of a run; `None` for a seed takes whichever stands first.
fn series(rows: &[StepRow], arm: &str, seed: Option<u64>, signal: &Signal, steps: usize) -> Vec<Option<f64>> {
    let seed = seed.or_else(|| rows.iter().find(|s| s.arm == arm).map(|s| s.seed));
    rows.iter().filter(|s| s.arm == arm && Some(s.seed) == seed).take(steps).map(signal.of).collect()
}

/// `None`: neither side has the signal. One that only one side has is infinitely far.
fn apart(b: &[Option<f64>], c: &[Option<f64>], signal: &Signal) -> Option<Apart> {
    if b.is_empty() || c.is_empty() || b.iter().chain(c).all(Option::is_none) {
        return None;
    }
    let far = Apart { max: f64::INFINITY, mean: f64::INFINITY };
    if b.iter().all(Option::is_none) || c.iter().all(Option::is_none) {
        return Some(far);
    }
    let both: Vec<(f64, f64)> = b.iter().zip(c).filter_map(|(b, c)| Some(((*b)?, (*c)?))).collect();
    let (b, c): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
    let scale = if signal.count { mean_size(&b) } else { spread(&b) };
    let r = residual(&b, &c)?;
    let unit = |x: f64| if x == 0.0 { 0.0 } else { x / scale };
    Some(Apart { max: unit(r.max), mean: unit(r.mean) })
}

fn mean_size(b: &[f64]) -> f64 {
    let size = b.iter().map(|x| x.abs()).sum::<f64>() / b.len() as f64;
    if size > 0.0 { size } else { 1.0 }
}

/// Standard deviation over the steps; of a trajectory that hardly moves, a thousandth of its size, so that
/// rounding is not taken for a change.
fn spread(b: &[f64]) -> f64 {
    let finite: Vec<f64> = b.iter().copied().filter(|x| x.is_finite()).collect();
    if finite.is_empty() {
        return 1.0;
    }
    let mean = finite.iter().sum::<f64>() / finite.len() as f64;
    let sd = (finite.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / finite.len() as f64).sqrt();
    sd.max(1e-3 * mean_size(&finite)).max(1e-9)
}

/// How far apart repeats of one program lie: neighbours in disjoint pairs, of either side.
/// `None`: nothing shows it.
fn noise(bench: &Bench, arm: &str, signal: &Signal, tail: f64) -> Option<Apart> {
    let steps = bench.config.trajectory.steps;
    let within = |repeats: &[Repeat]| -> Vec<Apart> {
        let of = |r: &Repeat| series(&r.steps, arm, None, signal, steps);
        repeats.chunks_exact(2).filter_map(|p| apart(&of(&p[0]), &of(&p[1]), signal)).collect()
    };
    let mut seen = within(&bench.baseline.repeats);
    seen.extend(within(&bench.candidate.repeats));
    let bound = |of: fn(&Apart) -> f64| noise_bound(&seen.iter().map(of).collect::<Vec<_>>(), tail);
    let measured = bound(|a| a.max).zip(bound(|a| a.mean)).map(|(max, mean)| Apart { max, mean });
    let exact = bench.baseline.deterministic(arm) && bench.candidate.deterministic(arm);
    measured.or(exact.then_some(Apart { max: 0.0, mean: 0.0 }))
}

fn finding(
    bench: &Bench,
    arm: &str,
    signal: &Signal,
    apart: Apart,
    noise: Option<Apart>,
    (max, mean): (f64, f64),
    verdict: Change,
) -> Finding {
    let steps = bench.config.trajectory.steps;
    let size = |x: f64| if signal.count { format!("{:.2} %", 100.0 * x) } else { format!("{x:.3} sd") };
    let allowed = match signal.count {
        true => format!("{} is allowed", size(max)),
        false => format!("{} and {} are allowed", size(max), size(mean)),
    };
    let known = match (verdict, noise) {
        (Change::Inconclusive, None) => {
            "; its run-to-run noise is not known: `kto-eval gate measure` shows it".to_owned()
        }
        (_, Some(n)) if n.max > 0.0 => format!("; repeats lie up to {} apart", size(n.max)),
        _ => String::new(),
    };
    let name = signal.name.replace('_', " ");
    let words = match apart.max.is_finite() {
        true => format!(
            "{name} of {arm} over the first {steps} steps: at most {} and on average {} from the baseline, {allowed}{known}",
            size(apart.max),
            size(apart.mean)
        ),
        false => format!("{name} of {arm}: only one side has it, or it is not finite on one side"),
    };
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    Finding {
        change: finite(apart.max),
        candidate: finite(apart.max),
        low: noise.and_then(|n| finite(apart.max - n.max)),
        high: noise.and_then(|n| finite(apart.max + n.max)),
        tolerance: max,
        verdict,
        words,
        ..absent(bench, arm)
    }
}

fn absent(_: &Bench, arm: &str) -> Finding {
    Finding {
        id: format!("trajectory/{arm}"),
        kind: Kind::Trajectory,
        arm: arm.to_owned(),
        unit: "sd".to_owned(),
        direction: Direction::Lower,
        baseline: None,
        candidate: None,
        change: None,
        low: None,
        high: None,
        relative: false,
        tolerance: 0.0,
        verdict: Change::Inconclusive,
        spread: None,
        degrees_of_freedom: 0,
        words: format!("trajectory of {arm}: there are no steps of it on both sides"),
    }
}
