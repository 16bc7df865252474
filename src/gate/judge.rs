//! All findings of a gate, under one budget of false alarms.

use super::config::Config;
use super::finding::{FORMAT, Finding, Findings, Kind};
use super::history::History;
use super::side::Side;
use super::{like, loss, quality, speed, trajectory};
use crate::record::{Direction, Status};
use crate::stats::gate::Change;

/// What the judges of single metrics share.
pub(super) struct Bench<'a> {
    pub baseline: &'a Side,
    pub candidate: &'a Side,
    pub config: &'a Config,
    pub history: &'a History,
    /// One-sided error of each test: `alarm` over the number of tests (Bonferroni). What is the same to the bit
    /// on both sides is no test: it cannot raise an alarm.
    pub tail: f64,
}

impl Bench<'_> {
    /// Arms that both sides have, in the baseline's order.
    pub fn arms(&self) -> Vec<&str> {
        let has = |name: &str| self.candidate.records.plan.arms.iter().any(|a| a.name == name);
        self.baseline.records.plan.arms.iter().map(|a| a.name.as_str()).filter(|a| has(a)).collect()
    }

    /// Whether either side's trainer says anything of its steps; a command need not.
    pub fn tells(&self, arm: &str) -> bool {
        let told = |side: &Side| side.records.steps.iter().any(|s| s.arm == arm);
        told(self.baseline) || told(self.candidate)
    }

    /// Seeds under which the arm ended well on both sides.
    pub fn seeds(&self, arm: &str) -> Vec<u64> {
        let done = |side: &Side, seed: u64| side.run(arm, seed).is_some_and(|r| r.status == Status::Done);
        let both = |s: &u64| done(self.baseline, *s) && done(self.candidate, *s);
        self.baseline.records.plan.seeds.iter().copied().filter(both).collect()
    }
}

/// Judges two sides. Pure: the same rows give the same findings.
///
/// The chance of any false alarm is `config.alarm`, shared equally among the tests. `notes` are put before
/// what the gate itself notes (`--allow-different`).
pub fn judge(
    baseline: &Side,
    candidate: &Side,
    config: &Config,
    history: &History,
    mut notes: Vec<String>,
) -> Findings {
    notes.extend(like::differences(baseline, candidate).1);
    let mut bench = Bench { baseline, candidate, config, history, tail: config.alarm };
    let drafts = quality::drafts(&bench);
    let silent = bench.arms().into_iter().filter(|arm| !bench.tells(arm));
    notes.extend(silent.map(|arm| {
        format!(
            "the trainer of {arm} writes no kto-eval-metrics.jsonl: its losses and first steps are not judged"
        )
    }));
    if config.quality.enabled && drafts.is_empty() {
        let named = if config.quality.metrics.is_empty() {
            &baseline.records.plan.verdict.primary
        } else {
            &config.quality.metrics
        };
        notes.push(format!("no quality is judged: the baseline has no score of {}", named.join(", ")));
    }
    let tests = tests(&bench, &drafts);
    bench.tail = config.alarm / tests.max(1) as f64;
    let mut findings = completion(&bench);
    findings.extend(drafts.iter().map(|d| quality::judge(&bench, d)));
    if config.final_loss.enabled {
        findings.extend(loss::judge(&bench));
    }
    if config.trajectory.enabled {
        findings.extend(trajectory::judge(&bench));
    }
    if config.throughput.enabled {
        findings.extend(speed::judge(&bench, Kind::Throughput, config.throughput.tolerance));
    }
    if config.memory.enabled {
        findings.extend(speed::judge(&bench, Kind::Memory, config.memory.tolerance));
    }
    let (verdict, fails) = Findings::conclude(&findings, config);
    Findings {
        format: FORMAT,
        plan: candidate.records.plan.name.clone(),
        verdict,
        fails,
        alarm: config.alarm,
        tests,
        baseline: baseline.records.environment.clone(),
        candidate: candidate.records.environment.clone(),
        notes,
        findings,
    }
}

/// Tests that noise could fail.
fn tests(bench: &Bench, drafts: &[quality::Draft]) -> usize {
    let config = bench.config;
    let arms = |enabled: bool, moved: &dyn Fn(&str) -> bool| match enabled {
        true => bench.arms().into_iter().filter(|arm| moved(arm)).count(),
        false => 0,
    };
    let measured = |_: &str| speed::measured(bench);
    drafts.iter().filter(|d| d.moved()).count()
        + arms(config.final_loss.enabled, &|arm| bench.tells(arm) && loss::moved(bench, arm))
        + arms(config.trajectory.enabled, &|arm| bench.tells(arm) && trajectory::moved(bench, arm))
        + arms(config.throughput.enabled, &measured)
        + arms(config.memory.enabled, &measured)
}

/// Arms of the baseline that are missing or were lost, where the baseline's ended well.
fn completion(bench: &Bench) -> Vec<Finding> {
    let mut findings = vec![];
    for arm in &bench.baseline.records.plan.arms {
        let ended = |side: &Side| {
            let runs: Vec<_> = side.records.runs.iter().filter(|r| r.arm == arm.name).collect();
            (runs.iter().filter(|r| r.status == Status::Done).count(), runs.len())
        };
        let ((well, of), (now, now_of)) = (ended(bench.baseline), ended(bench.candidate));
        let shares = (well as f64 / of.max(1) as f64, now as f64 / now_of.max(1) as f64);
        let lost = bench
            .candidate
            .records
            .runs
            .iter()
            .find(|r| r.arm == arm.name && r.status != Status::Done)
            .map(|r| format!("{}: {}", r.run, r.note.lines().next().unwrap_or_default()));
        let (verdict, words) = if now_of == 0 {
            (Change::Inconclusive, format!("arm {} is not in the candidate's plan", arm.name))
        } else if shares.1 < shares.0 {
            let lost = lost.unwrap_or_default();
            (
                Change::Regressed,
                format!("arm {}: {now} of {now_of} runs ended well, {well} of {of} before; {lost}", arm.name),
            )
        } else if shares.1 > shares.0 {
            (
                Change::Improved,
                format!("arm {}: {now} of {now_of} runs ended well, {well} of {of} before", arm.name),
            )
        } else {
            (Change::Pass, format!("arm {}: {now} of {now_of} runs ended well, as before", arm.name))
        };
        findings.push(Finding {
            baseline: Some(shares.0),
            candidate: (now_of > 0).then_some(shares.1),
            change: (now_of > 0).then_some(shares.1 - shares.0),
            verdict,
            words,
            ..Finding::undecided(Kind::Completion, &arm.name, "share", Direction::Higher)
        });
    }
    findings
}
