//! How often a whole gate cries wolf where nothing has changed, and what share of slowdowns it catches.
//!
//! `cargo test --release --lib gate::tests::size -- --include-ignored --nocapture` prints the tables of
//! `reports/METHODOLOGY.md`. Every bound here follows from the nominal rate, none from what was seen.

use rayon::prelude::*;
use statrs::distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF};

use super::strict;
use super::world::{Answers, Law, QUIET, Sides, World};
use crate::gate::{Config, Findings, History, Kind, judge};
use crate::stats::gate::{ALARM, Change};

/// A state of affairs without any change.
struct Case {
    name: &'static str,
    world: World,
    /// Tolerances of 0: nothing but the intervals stands between noise and an alarm.
    strict: bool,
    /// Earlier gates, and the machine that they ran on.
    history: (u64, Law),
}

const NO_HISTORY: (u64, Law) = (0, Law::None);

fn cases() -> Vec<Case> {
    let case = |name, world| Case { name, world, strict: true, history: NO_HISTORY };
    let scored = |seeds, prompts, answers| World { seeds, prompts, answers, ..QUIET };
    let heavy =
        World { machine: Law::Heavy(0.03), memory: Law::Heavy(0.005), trainer: Law::Heavy(0.01), ..QUIET };
    let states = World {
        machine: Law::TwoStates(0.7),
        memory: Law::TwoStates(0.05),
        trainer: Law::TwoStates(0.1),
        ..QUIET
    };
    let hiccups = World { machine: Law::Hiccups(0.08), ..QUIET };
    let history = |n, law, case: Case| Case { history: (n, law), ..case };
    vec![
        case("normal noise, 3 % a run", QUIET),
        Case { strict: false, ..case("the same, default tolerances", QUIET) },
        case("three seeds", World { seeds: 3, ..QUIET }),
        case("one run in twenty twice as long", hiccups),
        Case { strict: false, ..case("the same, default tolerances", hiccups) },
        case("heavy tails (t, 2 df) in all that is measured", heavy),
        case("the same, three seeds", World { seeds: 3, ..heavy }),
        case("two states in all that is measured", states),
        case("the same, three seeds", World { seeds: 3, ..states }),
        case("2 rounds", World { rounds: 2, ..QUIET }),
        case("6 rounds, two states", World { rounds: 6, ..states }),
        case("11 rounds", World { rounds: 11, ..QUIET }),
        case("11 rounds, heavy tails", World { rounds: 11, ..heavy }),
        case("48 rounds", World { rounds: 48, ..QUIET }),
        history(1, Law::Normal(0.03), case("a history of one gate", QUIET)),
        history(20, Law::Normal(0.03), case("a history of 20 gates", QUIET)),
        history(20, Law::Normal(0.003), case("a history of a ten times quieter machine", QUIET)),
        case("bit-equal runs", World { trainer: Law::None, ..scored(3, 60, Answers::Right) }),
        case("one arm", World { arms: 1, ..QUIET }),
        case("twelve arms: 48 tests", World { arms: 12, ..QUIET }),
        case("accuracy on 60 prompts, 5 seeds", scored(5, 60, Answers::Right)),
        case("accuracy on 60 prompts, 3 seeds", scored(3, 60, Answers::Right)),
        case("accuracy on 200 prompts, 3 seeds", scored(3, 200, Answers::Right)),
        case("margin, heavy tails, 60 prompts, 3 seeds", scored(3, 60, Answers::Margin)),
        case("one answer in a hundred turned over, 60 prompts, 3 seeds", scored(3, 60, Answers::Rare)),
        case("the same, 5 seeds", scored(5, 60, Answers::Rare)),
    ]
}

fn config(strict: bool) -> Config {
    if strict { super::strict() } else { Config::default() }
}

/// Findings of many gates, reduced to what is asked of each.
fn gates<T: Send>(
    world: World,
    config: &Config,
    history: &History,
    trials: std::ops::Range<u64>,
    of: impl Fn(Findings) -> T + Sync,
) -> Vec<T> {
    let one = |sides: &mut Sides, trial| {
        let sides = sides.fill(trial);
        of(judge(&sides.baseline, &sides.candidate, config, history, vec![]))
    };
    trials.into_par_iter().map_init(|| Sides::new(world), one).collect()
}

/// What gates of the same trainer on that machine left behind.
fn past(world: World, (n, machine): (u64, Law)) -> History {
    let mut history = History::default();
    let trials = 1_000_000..1_000_000 + n;
    let past = gates(World { machine, ..world }, &Config::default(), &History::default(), trials, |f| f);
    past.iter().for_each(|f| history.add(&f.findings));
    history
}

/// Alarms, and the tests of the last gate.
fn alarms(case: &Case, trials: u64) -> (usize, usize) {
    let history = past(case.world, case.history);
    let of = |f: Findings| (f.verdict == Change::Regressed, f.tests);
    let seen = gates(case.world, &config(case.strict), &history, 0..trials, of);
    (seen.iter().filter(|s| s.0).count(), seen.last().map_or(0, |s| s.1))
}

/// More alarms than this come of the nominal rate in one simulation of a thousand.
fn bound(trials: u64) -> u64 {
    Binomial::new(ALARM, trials).unwrap().inverse_cdf(0.999)
}

/// Clopper-Pearson interval of a share at 95 %.
fn exact(hits: usize, trials: u64) -> (f64, f64) {
    let (k, n) = (hits as f64, trials as f64);
    let beta = |a: f64, b: f64, p: f64| Beta::new(a, b).unwrap().inverse_cdf(p);
    (
        if hits == 0 { 0.0 } else { beta(k, n - k + 1.0, 0.025) },
        if k == n { 1.0 } else { beta(k + 1.0, n - k, 0.975) },
    )
}

#[test]
fn no_change_raises_no_more_alarms_than_promised() {
    for case in cases().iter().filter(|c| c.world.arms < 12 && c.world.prompts <= 60) {
        let trials = if case.world.prompts > 0 { 100 } else { 400 };
        let (alarms, _) = alarms(case, trials);
        assert!(alarms as u64 <= bound(trials), "{}: {alarms} of {trials}", case.name);
    }
}

#[test]
#[ignore = "20,000 gates of each case: minutes"]
fn table_of_false_alarms() {
    let trials = 20_000;
    println!("| nothing has changed | tolerances | tests | alarms | share | exact 95 % interval |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    let mut over = vec![];
    for case in cases() {
        let (alarms, tests) = alarms(&case, trials);
        let (low, high) = exact(alarms, trials);
        let share = 100.0 * alarms as f64 / trials as f64;
        println!(
            "| {} | {} | {tests} | {alarms} | {share:.2} % | {:.2} to {:.2} % |",
            case.name,
            if case.strict { "0" } else { "default" },
            100.0 * low,
            100.0 * high
        );
        if alarms as u64 > bound(trials) {
            over.push(case.name);
        }
    }
    assert!(over.is_empty(), "more than the nominal rate explains: {over:?}");
}

/// Gates of `trials` with this verdict on the first arm's throughput.
fn found(world: World, history: &History, trials: u64, verdict: Change) -> usize {
    let of = |f: Findings| f.findings.iter().any(|f| f.id == "throughput/kto" && f.verdict == verdict);
    gates(world, &Config::default(), history, 0..trials, of).into_iter().filter(|c| *c).count()
}

#[test]
fn a_slowdown_of_a_tenth_is_caught() {
    let slow = World { speed: 0.9, ..QUIET };
    let trials = 200;
    let seen = found(slow, &History::default(), trials, Change::Regressed);
    // The claim is nine of ten: fewer than this come of it in one simulation of a thousand.
    let least = Binomial::new(0.9, trials).unwrap().inverse_cdf(0.001);
    assert!(seen as u64 >= least, "{seen} of {trials}");
    let found = gates(slow, &Config::default(), &History::default(), 1..2, |f| f).remove(0);
    assert!(found.fails && found.of(Change::Regressed).all(|f| f.kind == Kind::Throughput), "{found:?}");
}

#[test]
#[ignore = "96,000 gates: minutes"]
fn table_of_slowdowns_caught() {
    let trials = 1000;
    let share = |hits: usize| 100.0 * hits as f64 / trials as f64;
    println!("| noise a run | history | 8 rounds | 11 | 16 | 20 | 24 | 32 |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, machine) in [
        ("2 %", Law::Normal(0.02)),
        ("3 %", Law::Normal(0.03)),
        ("5 %", Law::Normal(0.05)),
        ("3 %, one run in twenty twice as long", Law::Hiccups(0.03)),
    ] {
        for n in [0, 10] {
            let cells = [8, 11, 16, 20, 24, 32].map(|rounds| {
                let same = World { machine, rounds, ..QUIET };
                let history = past(same, (n, machine));
                let caught = found(World { speed: 0.9, ..same }, &history, trials, Change::Regressed);
                let passed = found(same, &history, trials, Change::Pass);
                format!("{:.0} %, {:.0} %", share(caught), share(passed))
            });
            println!("| {name} | {n} gates | {} |", cells.join(" | "));
        }
    }
}

#[test]
fn tolerances_of_nothing_are_what_the_cases_mean() {
    let config = strict();
    assert_eq!(
        (config.throughput.tolerance, config.trajectory.max, config.quality.tolerance),
        (0.0, 0.0, 0.0)
    );
}
