//! What scoring a suite gives.

use super::definition::OpponentKind;
use super::judge::{Match, Outcome};
use super::labels::LabelLogps;
use super::metric::Metric;
use super::preference::PairLogps;

/// A suite's scores for one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredSuite {
    /// A value per example and metric, for the metrics that are means over examples.
    pub examples: Vec<ExampleScore>,
    /// A value per subset and metric; subset `all` first.
    pub metrics: Vec<MetricScore>,
    /// What the models say of each pair (preference suites).
    pub pairs: Vec<PairLogps>,
    /// What they say of each completion with a label (label suites).
    pub labels: Vec<LabelLogps>,
    /// What the policy wrote (generation suites).
    pub samples: Vec<Sample>,
    /// Contestants that ought to lose (generation suites with a judge that compares).
    pub sentinels: Vec<SentinelScore>,
    /// Examples left out, with the reason: too long, no token, an instruction kind that is not implemented.
    pub excluded: Vec<Exclusion>,
    /// What a reader of the scores should know.
    pub notes: Vec<String>,
}

impl ScoredSuite {
    /// The score of `metric` over all examples.
    pub fn overall(&self, metric: Metric) -> Option<&MetricScore> {
        self.metrics.iter().find(|m| m.metric == metric && m.subset == ALL)
    }

    /// Counts of exclusions by reason, in order of reason.
    pub fn exclusions(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for e in &self.excluded {
            *counts.entry(&e.reason).or_default() += 1;
        }
        counts.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect()
    }

    /// The exclusions and the notes, a sentence each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let left_out = |(reason, n)| format!("{n} examples left out: {reason}");
        self.exclusions().into_iter().map(left_out).chain(self.notes.iter().cloned())
    }
}

/// The subset that holds every example.
pub const ALL: &str = "all";

#[derive(Clone, Debug, PartialEq)]
pub struct ExampleScore {
    pub example: String,
    /// Examples with the same prompt share it; they are resampled together.
    pub cluster: String,
    pub subset: String,
    pub metric: Metric,
    pub value: f64,
}

/// Unit and direction: [`Metric::info`].
#[derive(Clone, Debug, PartialEq)]
pub struct MetricScore {
    /// [`ALL`], a subset of the data, or a section of the suite.
    pub subset: String,
    pub metric: Metric,
    pub value: f64,
    pub n: usize,
    /// Clustered by prompt; NaN where there are fewer than two prompts.
    pub standard_error: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub example: String,
    pub cluster: String,
    pub subset: String,
    pub prompt: String,
    pub completion: String,
    /// Tokens generated, EOS included.
    pub tokens: usize,
    /// Ended with EOS or a stop string (not cut at the limit).
    pub finished: bool,
    /// The judge's score of the sample alone, where it gives one.
    pub reward: Option<f64>,
    pub opponents: Vec<Opponent>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Opponent {
    pub kind: OpponentKind,
    pub completion: String,
    pub reward: Option<f64>,
    pub outcome: Outcome,
}

/// How a contestant that ought to lose did.
#[derive(Clone, Debug, PartialEq)]
pub struct SentinelScore {
    pub sentinel: &'static str,
    pub opponent: OpponentKind,
    pub win_rate: f64,
    pub n: usize,
    pub standard_error: f64,
    /// What the score is made of.
    pub games: Vec<Game>,
}

/// One match of a contestant, without the texts. Lengths are in characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Game {
    pub example: String,
    pub cluster: String,
    pub outcome: Outcome,
    pub candidate_length: usize,
    pub baseline_length: usize,
}

impl Game {
    pub fn of(played: &Match, outcome: Outcome) -> Self {
        Self {
            example: played.task.id.clone(),
            cluster: played.task.cluster.clone(),
            outcome,
            candidate_length: played.candidate.chars().count(),
            baseline_length: played.baseline.chars().count(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exclusion {
    pub example: String,
    pub reason: String,
}
