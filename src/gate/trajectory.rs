//! The first steps, held against the baseline's: two-sided, since a loss that falls too fast is a fault too
//! (MLPerf's reference convergence points refuse both).

use super::finding::{Finding, Kind};
use super::judge::Bench;
use super::side::Repeat;
use crate::plan::Budget;
use crate::record::{Direction, StepRow};
use crate::stats::Interval;
use crate::stats::gate::{Change, residual};
use crate::stats::signed_rank::{fewest, location};

/// A column of `steps.csv` that is compared.
struct Signal {
    name: &'static str,
    of: fn(&StepRow) -> Option<f64>,
    /// Counts follow from data and masks alone and carry no rounding.
    count: bool,
}

static SIGNALS: [Signal; 12] = [
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

impl Apart {
    fn beyond(self, allowed: Self) -> bool {
        self.max > allowed.max || self.mean > allowed.mean
    }

    fn times(self, share: f64) -> Self {
        Self { max: share * self.max, mean: share * self.mean }
    }
}

/// What the sides show of one signal.
struct Seen {
    signal: &'static Signal,
    apart: Apart,
    allowed: Apart,
    /// Steps told of by baseline and candidate: of the first seed where they differ, else of the first.
    steps: [usize; 2],
}

/// One finding an arm that tells its steps: that of its worst signal.
pub(super) fn judge(bench: &Bench) -> Vec<Finding> {
    bench.arms().into_iter().filter(|arm| bench.tells(arm)).map(|arm| one(bench, arm)).collect()
}

/// Whether any signal differs between the sides at all.
pub(super) fn moved(bench: &Bench, arm: &str) -> bool {
    seen(bench, arm).iter().any(|s| s.apart.max > 0.0)
}

fn one(bench: &Bench, arm: &str) -> Finding {
    let seen = seen(bench, arm);
    let beyond: Vec<&Seen> = seen.iter().filter(|s| s.apart.beyond(s.allowed)).collect();
    let again = if beyond.is_empty() { Again::Exact } else { again(bench, arm, &beyond) };
    let verdict = |s: &Seen| match (s.apart.beyond(s.allowed), &again) {
        (false, _) => Change::Pass,
        (true, Again::Exact) => Change::Regressed,
        (true, Again::Share(share, _)) if s.apart.times(share.low).beyond(s.allowed) => Change::Regressed,
        (true, _) => Change::Inconclusive,
    };
    let place = |s: &Seen| {
        let rank = [Change::Pass, Change::Inconclusive].iter().position(|c| *c == verdict(s)).unwrap_or(2);
        let over = |x: f64, allowed: f64| x / allowed.max(1e-12);
        let excess = over(s.apart.max, s.allowed.max).max(over(s.apart.mean, s.allowed.mean)).min(1e9);
        rank as f64 * 1e12 + excess
    };
    let worst = seen.iter().rev().max_by(|a, b| place(a).total_cmp(&place(b)));
    worst.map_or_else(|| absent(arm), |s| finding(arm, s, &again, verdict(s)))
}

/// Every signal that either side has.
fn seen(bench: &Bench, arm: &str) -> Vec<Seen> {
    let config = &bench.config.trajectory;
    let seeds = bench.seeds(arm);
    let sides: Vec<[Vec<&StepRow>; 2]> = seeds.iter().map(|seed| full(bench, arm, *seed)).collect();
    let counts = || sides.iter().map(|side| [side[0].len(), side[1].len()]);
    let Some(steps) = counts().find(|[b, c]| b != c).or_else(|| counts().next()) else { return vec![] };
    let one = |signal: &'static Signal| {
        let of = |[b, c]: &[Vec<&StepRow>; 2]| apart(&series(b, signal), &series(c, signal), signal);
        let each: Vec<Apart> = sides.iter().filter_map(of).collect();
        let allowed = match signal.count {
            true => Apart { max: config.counts, mean: f64::INFINITY },
            false => Apart { max: config.max, mean: config.mean },
        };
        Some(Seen { signal, apart: together(&each)?, allowed, steps })
    };
    SIGNALS.iter().filter_map(one).collect()
}

/// The worst step of any seed, and the mean over seeds.
fn together(each: &[Apart]) -> Option<Apart> {
    let n = each.len() as f64;
    (!each.is_empty()).then(|| Apart {
        max: each.iter().map(|a| a.max).fold(0.0, f64::max),
        mean: each.iter().map(|a| a.mean).sum::<f64>() / n,
    })
}

/// The first steps of both sides' full runs: as many as are asked for, where the baseline's rows (a saved one keeps the
/// first 200 steps) go so far. A budget of time ends where the machine is: there, as many as both have.
fn full<'b>(bench: &Bench<'b>, arm: &str, seed: u64) -> [Vec<&'b StepRow>; 2] {
    let [baseline, candidate] = [&bench.baseline.records, &bench.candidate.records];
    let asked = bench.config.trajectory.steps;
    let mut b = first_steps(&baseline.steps, arm, seed, asked);
    let taken = bench.baseline.run(arm, seed).map_or(0, |r| r.steps);
    let cut = b.last().is_some_and(|last| last.step < taken);
    let mut c = first_steps(&candidate.steps, arm, seed, if cut { b.len() } else { asked });
    if matches!(baseline.plan.budget, Budget::Seconds(_)) {
        let both = b.len().min(c.len());
        b.truncate(both);
        c.truncate(both);
    }
    [b, c]
}

/// The first steps of a run.
fn first_steps<'r>(rows: &'r [StepRow], arm: &str, seed: u64, steps: usize) -> Vec<&'r StepRow> {
    rows.iter().filter(|s| s.seed == seed && s.arm == arm).take(steps).collect()
}

fn series(rows: &[&StepRow], signal: &Signal) -> Vec<Option<f64>> {
    rows.iter().map(|s| (signal.of)(s)).collect()
}

/// `None`: neither side has the signal, or the baseline has no steps. A step where only one side has it is infinitely far.
fn apart(b: &[Option<f64>], c: &[Option<f64>], signal: &Signal) -> Option<Apart> {
    if b.is_empty() || b.iter().chain(c).all(Option::is_none) {
        return None;
    }
    if lacks(b, c) || lacks(c, b) {
        return Some(Apart { max: f64::INFINITY, mean: f64::INFINITY });
    }
    let both: Vec<(f64, f64)> = b.iter().zip(c).filter_map(|(b, c)| Some(((*b)?, (*c)?))).collect();
    let (b, c): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
    let scale = if signal.count { mean_size(&b) } else { spread(&b) };
    let r = residual(&b, &c)?;
    let unit = |x: f64| if x == 0.0 { 0.0 } else { x / scale };
    Some(Apart { max: unit(r.max), mean: unit(r.mean) })
}

/// Whether `other` has a value at a step where `own` has none.
fn lacks(own: &[Option<f64>], other: &[Option<f64>]) -> bool {
    other.iter().enumerate().any(|(i, x)| x.is_some() && own.get(i).copied().flatten().is_none())
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

/// Whether a difference of the full runs is one of the programs, not of two runs.
enum Again {
    /// Both sides repeat bit for bit ([`super::side::Side::deterministic`]): any difference is one of the programs.
    Exact,
    /// The share of it that comes again in rounds turn about (1: all), with its interval and the rounds.
    Share(Interval, usize),
    /// Too few rounds to say, and how many are needed.
    Few(usize),
}

/// Each round's difference is projected on that of the full runs, over the signals that lie beyond their tolerance.
/// Where nothing has changed, the two runs of a round are exchangeable whatever their noise, the projection is
/// symmetric about 0, and the signed-rank interval lies above 0 no more often than `tail`.
fn again(bench: &Bench, arm: &str, beyond: &[&Seen]) -> Again {
    if bench.baseline.deterministic(arm) && bench.candidate.deterministic(arm) {
        return Again::Exact;
    }
    let rounds = bench.baseline.repeats.iter().zip(&bench.candidate.repeats);
    let shares: Vec<f64> = rounds.filter_map(|(b, c)| projected(bench, arm, beyond, b, c)).collect();
    let least = fewest(bench.tail);
    match location(&shares, bench.tail) {
        Some(found) if shares.len() >= least => Again::Share(found.interval, shares.len()),
        _ => Again::Few(least),
    }
}

/// Mean over the signals of ⟨c − b, v⟩/⟨v, v⟩, v the full runs' difference under the round's seed.
fn projected(bench: &Bench, arm: &str, beyond: &[&Seen], b: &Repeat, c: &Repeat) -> Option<f64> {
    let steps = bench.config.trajectory.steps;
    let seed = b.steps.iter().find(|s| s.arm == arm)?.seed;
    let [full_b, full_c] = full(bench, arm, seed);
    let [b, c] = [&b.steps, &c.steps].map(|rows| first_steps(rows, arm, seed, steps));
    let rows = [full_b, full_c, b, c];
    let share = |signal: &Signal| {
        let [full_b, full_c, b, c] = [0, 1, 2, 3].map(|i| series(&rows[i], signal));
        // A signal that only one side lost (or has no finite values of) is compared by that alone.
        let lost = |x: &[Option<f64>], y: &[Option<f64>]| {
            let worse = |own: &[Option<f64>], other: &[Option<f64>]| {
                f64::from(u8::from(broken(own) || lacks(own, other)))
            };
            worse(y, x) - worse(x, y)
        };
        let way = lost(&full_b, &full_c);
        if way != 0.0 {
            return Some(way * lost(&b, &c));
        }
        let (mut dot, mut square) = (0.0, 0.0);
        for (((x, y), b), c) in full_b.iter().zip(&full_c).zip(&b).zip(&c) {
            let (Some(v), Some(d)) = (minus(*y, *x), minus(*c, *b)) else { continue };
            dot += d * v;
            square += v * v;
        }
        (square > 0.0).then(|| dot / square)
    };
    let shares: Vec<f64> = beyond.iter().filter_map(|s| share(s.signal)).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

fn broken(series: &[Option<f64>]) -> bool {
    series.iter().flatten().any(|x| !x.is_finite())
}

fn minus(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? - b?).filter(|d| d.is_finite())
}

fn finding(arm: &str, seen: &Seen, again: &Again, verdict: Change) -> Finding {
    let Seen { signal, apart, allowed, steps: [steps, now] } = seen;
    let size = |x: f64| if signal.count { format!("{:.2} %", 100.0 * x) } else { format!("{x:.3} sd") };
    let limits = match signal.count {
        true => format!("{} is allowed", size(allowed.max)),
        false => format!("{} and {} are allowed", size(allowed.max), size(allowed.mean)),
    };
    let percent = |x: f64| format!("{:.0} %", 100.0 * x);
    let known = match (verdict, again) {
        (Change::Pass, _) | (_, Again::Exact) => String::new(),
        (Change::Regressed, Again::Share(share, n)) => {
            format!("; {n} rounds turn about show at least {} of it again", percent(share.low.min(1.0)))
        }
        (_, Again::Share(share, n)) => format!(
            "; {n} rounds turn about show {} to {} of it again: noise of single runs may have made it",
            percent(share.low),
            percent(share.high)
        ),
        (_, Again::Few(least)) => {
            format!("; whether it is more than noise, {least} rounds of `kto-eval gate measure` would show")
        }
    };
    let name = signal.name.replace('_', " ");
    let words = match apart.max.is_finite() {
        _ if steps != now => {
            format!("trajectory of {arm}: {now} steps in the candidate where the baseline has {steps}{known}")
        }
        true => format!(
            "{name} of {arm} over the first {steps} steps: at most {} and on average {} from the baseline, {limits}{known}",
            size(apart.max),
            size(apart.mean)
        ),
        false => format!(
            "{name} of {arm}: at some step only one side has it, or it is not finite on one side{known}"
        ),
    };
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    let interval = match again {
        Again::Share(share, _) if verdict != Change::Pass => {
            Some((share.low * apart.max, share.high * apart.max))
        }
        _ => None,
    };
    Finding {
        change: finite(apart.max),
        candidate: finite(apart.max),
        low: interval.and_then(|i| finite(i.0)),
        high: interval.and_then(|i| finite(i.1)),
        unit: if signal.count { "share" } else { "sd" }.to_owned(),
        tolerance: allowed.max,
        verdict,
        words,
        ..absent(arm)
    }
}

fn absent(arm: &str) -> Finding {
    Finding {
        words: format!("trajectory of {arm}: there are no steps of it on both sides"),
        ..Finding::undecided(Kind::Trajectory, arm, "sd", Direction::Lower)
    }
}
