//! What ran, as rows.

use crate::plan::{BASE_ARM, RunSpec};
use crate::record::{
    Direction, ExampleRow, JudgmentRow, Opponent, RunRow, SENTINEL, SampleRow, ScoreRow, Status, StepRow,
};
use crate::suite::judge::Outcome;
use crate::suite::{self, ALL, Metric, OpponentKind, ScoredSuite, Suite};
use crate::train::{Ledger, StepMetrics};

/// Whose rows they are.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub run: String,
    pub arm: String,
    pub seed: u64,
}

impl Owner {
    pub fn of(run: &RunSpec) -> Self {
        Self { run: run.id.clone(), arm: run.arm.name.clone(), seed: run.seed }
    }

    /// The starting checkpoint, which has no run of its own.
    pub fn base(seed: u64) -> Self {
        Self { run: BASE_ARM.to_owned(), arm: BASE_ARM.to_owned(), seed }
    }
}

pub(super) fn step(owner: &Owner, m: &StepMetrics) -> StepRow {
    StepRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        step: m.step,
        loss: m.loss,
        grad_norm: m.grad_norm,
        learning_rate: m.learning_rate,
        reward_chosen: m.reward_chosen,
        reward_rejected: m.reward_rejected,
        margin: m.margin,
        accuracy: m.accuracy,
        kl_unclamped: m.kl_unclamped,
        kl: m.kl,
        saturation: m.saturation,
        desirable: m.desirable,
        undesirable: m.undesirable,
        logp_chosen: m.logp_chosen,
        logp_rejected: m.logp_rejected,
        policy_tokens: m.policy_tokens,
        completion_tokens: m.completion_tokens,
        kl_tokens: m.kl_tokens,
        total_policy_tokens: m.total_policy_tokens,
        seconds: m.seconds,
    }
}

/// A step of a run that had `spent` before its present stage.
pub(super) fn after(row: StepRow, spent: &Ledger) -> StepRow {
    StepRow {
        step: row.step + spent.steps,
        total_policy_tokens: row.total_policy_tokens + spent.policy_tokens,
        ..row
    }
}

/// A run's row before it has spent anything.
pub(super) fn run(spec: &RunSpec) -> RunRow {
    let mut row = RunRow {
        run: spec.id.clone(),
        arm: spec.arm.name.clone(),
        method: spec.arm.method.name().to_owned(),
        seed: spec.seed,
        status: Status::Failed,
        note: String::new(),
        steps: 0,
        examples: 0,
        labels: 0,
        policy_tokens: 0,
        completion_tokens: 0,
        computed_tokens: 0,
        kl_tokens: 0,
        reference_tokens: 0,
        flops: 0.0,
        epochs: 0.0,
        trained_parameters: 0,
        final_loss: f64::NAN,
        weights: String::new(),
        train_seconds: 0.0,
        tokens_per_second: 0.0,
        reference_seconds: 0.0,
        score_seconds: 0.0,
        start_host_mib: 0.0,
        peak_host_mib: 0.0,
        peak_device_mib: 0.0,
    };
    ledger(&mut row, &Ledger::default());
    row
}

pub(super) fn ledger(row: &mut RunRow, l: &Ledger) {
    row.steps = l.steps;
    row.examples = l.examples;
    row.labels = l.labels;
    row.policy_tokens = l.policy_tokens;
    row.completion_tokens = l.completion_tokens;
    row.computed_tokens = l.computed_tokens;
    row.kl_tokens = l.kl_tokens;
    row.reference_tokens = l.reference_tokens;
    row.flops = l.flops;
    row.epochs = l.epochs;
    row.train_seconds = l.train_seconds;
    row.tokens_per_second =
        if l.train_seconds > 0.0 { l.policy_tokens as f64 / l.train_seconds } else { 0.0 };
    row.reference_seconds = l.reference_seconds;
}

pub(super) fn scores(owner: &Owner, suite: &Suite, scored: &ScoredSuite) -> Vec<ScoreRow> {
    let own = scored
        .metrics
        .iter()
        .map(|m| score(owner, suite, &m.subset, m.metric, m.value, m.n, m.standard_error));
    let sentinels = scored.sentinels.iter().map(|s| {
        // Sentinels are contestants without a run: they have scores and nothing else.
        let name = format!("{SENTINEL}{}", s.sentinel);
        let owner = Owner { run: name.clone(), arm: name, seed: owner.seed };
        score(&owner, suite, ALL, s.opponent.win_rate(), s.win_rate, s.n, s.standard_error)
    });
    own.chain(sentinels).collect()
}

fn score(
    owner: &Owner,
    suite: &Suite,
    subset: &str,
    metric: Metric,
    value: f64,
    n: usize,
    se: f64,
) -> ScoreRow {
    let info = metric.info();
    ScoreRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        suite: suite.name.clone(),
        subset: subset.to_owned(),
        metric: info.name.to_owned(),
        value,
        n: n as u64,
        standard_error: se,
        unit: info.unit.to_owned(),
        direction: direction(info.direction),
    }
}

pub(super) fn direction(direction: suite::Direction) -> Direction {
    match direction {
        suite::Direction::Higher => Direction::Higher,
        suite::Direction::Lower => Direction::Lower,
        suite::Direction::Neutral => Direction::Neutral,
    }
}

pub(super) fn examples(owner: &Owner, suite: &Suite, scored: &ScoredSuite) -> Vec<ExampleRow> {
    let row = |e: &suite::ExampleScore| ExampleRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        suite: suite.name.clone(),
        subset: e.subset.clone(),
        example: e.example.clone(),
        cluster: e.cluster.clone(),
        metric: e.metric.name().to_owned(),
        value: e.value,
    };
    scored.examples.iter().map(row).collect()
}

pub(super) fn samples(owner: &Owner, suite: &Suite, scored: &ScoredSuite) -> Vec<SampleRow> {
    let row = |s: &suite::Sample| SampleRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        suite: suite.name.clone(),
        subset: s.subset.clone(),
        example: s.example.clone(),
        prompt: s.prompt.clone(),
        completion: s.completion.clone(),
        tokens: s.tokens as u64,
        finished: s.finished,
        reward: s.reward,
        // An opponent that the judge gave no valid answer on is counted by the suite, not guessed here.
        opponents: s
            .opponents
            .iter()
            .filter_map(|o| {
                Some(Opponent {
                    name: o.kind.name().to_owned(),
                    completion: o.completion.clone(),
                    reward: o.reward,
                    preference: o.outcome.preference?,
                })
            })
            .collect(),
    };
    scored.samples.iter().map(row).collect()
}

/// Every match behind the win rates: the contestant's own, and on the starting checkpoint the sentinels'.
pub(super) fn judgments(owner: &Owner, suite: &Suite, scored: &ScoredSuite) -> Vec<JudgmentRow> {
    let row = |who: &str, opponent: OpponentKind, id: &str, outcome: Outcome, lengths: (usize, usize)| {
        JudgmentRow {
            run: if who == owner.arm { owner.run.clone() } else { who.to_owned() },
            arm: who.to_owned(),
            seed: owner.seed,
            suite: suite.name.clone(),
            id: id.to_owned(),
            candidate: who.to_owned(),
            baseline: opponent.name().to_owned(),
            preference: outcome.preference,
            flipped: outcome.flipped,
            candidate_length: lengths.0 as u64,
            baseline_length: lengths.1 as u64,
        }
    };
    let chars = |text: &str| text.chars().count();
    let own = scored.samples.iter().flat_map(|s| {
        let lengths = |o: &suite::Opponent| (chars(&s.completion), chars(&o.completion));
        s.opponents.iter().map(move |o| (o.kind, s.example.as_str(), o.outcome, lengths(o)))
    });
    let own = own.map(|(kind, id, outcome, lengths)| row(&owner.arm, kind, id, outcome, lengths));
    let sentinels = scored.sentinels.iter().filter(|s| s.sentinel != BASE_ARM).flat_map(|s| {
        let name = format!("{SENTINEL}{}", s.sentinel);
        s.games.iter().map(move |g| (name.clone(), s.opponent, g))
    });
    let sentinels = sentinels.map(|(name, opponent, g)| {
        row(&name, opponent, &g.example, g.outcome, (g.candidate_length, g.baseline_length))
    });
    own.chain(sentinels).collect()
}
