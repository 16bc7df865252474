//! The resolved plan: the file's tables are laid over the defaults into these; everything after works from these alone.

use serde::{Deserialize, Serialize};

pub use super::hyperparameters::*;
pub use super::inputs::*;
pub use super::training::*;

/// A comparison: arms × seeds from one checkpoint, under one budget, scored on the same held-out suites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    /// Why this comparison is run and how to read it; printed at the head of the report.
    pub analysis: String,
    pub seeds: Vec<u64>,
    pub budget: Budget,
    pub model: ModelSpec,
    pub data: DataSpec,
    pub suites: SuitesSpec,
    pub judge: JudgeSpec,
    pub verdict: VerdictSpec,
    /// Where its runs execute under `--launcher slurm`; no result depends on it.
    pub slurm: super::SlurmSpec,
    /// The claim that a swept plan tests, and what its points are held against.
    pub sweep: SweepSpec,
    /// Tuning of each arm before the comparison; absent: every arm runs as it stands.
    pub tune: Option<TuneSpec>,
    pub prices: PricesSpec,
    pub arms: Vec<Arm>,
}

/// One contestant: a method with its hyperparameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub name: String,
    pub method: Method,
    pub train: TrainSpec,
    /// A command that trains in place of this engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<TrainerSpec>,
    /// Share of the budget spent on SFT before the method, in [0, 1); the reference is then the SFT policy. 0: none.
    pub sft_first: f64,
    /// The plan's data with what this arm has otherwise.
    pub data: DataSpec,
    /// The plan's budget, or this arm's point of a swept one.
    pub budget: Budget,
    /// Where the arm stands in a sweep; absent where none of its keys held a list.
    pub point: Option<super::sweep::Point>,
    /// The keys that tuning searches: a list of values, or `{ from, to, log }`. Empty: nothing.
    pub tune: toml::Table,
}

/// `[sweep]`: what the points of a swept plan are held against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// The claim under test, as a sentence; printed before the verdict on it.
    pub claim: String,
    /// The arms that the claim speaks of: points (`kto@fraction=0.1`), or an arm with all its points (`kto`). Empty: all.
    pub arms: Vec<String>,
    /// What the claim holds them against. A point (`dpo@fraction=1`) is compared with every other arm, besides the arms
    /// at its own values; an arm with all its points (`dpo`) stands at equal values. Empty: whatever is compared.
    pub against: Vec<String>,
}

/// `[tune]`: the same number of trials for every arm, judged on prompts carved out of the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneSpec {
    /// Configurations tried beside the arm's own (trial 0).
    pub trials: usize,
    pub search: Search,
    /// Seed of the draws, of the validation split and of the trials' training.
    pub seed: u64,
    /// Share of the training prompts kept out of all training and used for the choice, in (0, 1).
    pub validation: f64,
    /// A suite whose questions are the plan's own data (`source = "plan"`): asked on the validation split.
    pub suite: String,
    /// The metric of the suite that chooses.
    pub metric: String,
    /// A trial's budget as a share of a run's, in (0, 1].
    pub budget_share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Search {
    /// Independent draws (Bergstra & Bengio 2012).
    Random,
    /// Every combination of the listed values.
    Grid,
}

/// `[prices]`: what a device costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PricesSpec {
    /// Price of one device for an hour; 0: unknown, and no money is shown.
    pub device_hour: f64,
    pub currency: String,
}

/// A trainer that is a command. Its words may hold placeholders such as `{model}` (`plan::values`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerSpec {
    /// Program and arguments; run as they are, by no shell.
    pub command: Vec<String>,
    /// The form in which the training split is written for it.
    pub data: TrainerData,
    /// It is stopped after this long.
    pub timeout_seconds: f64,
    /// Most of its log that is kept; the rest is read and thrown away.
    pub log_mib: f64,
    /// Keep the trained model after scoring.
    pub keep_model: bool,
}

/// Forms of training data for external trainers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainerData {
    /// TRL's JSON lines: `prompt`, `chosen`, `rejected` where the data are pairs, else `prompt`,
    /// `completion`, `label`.
    TrlJsonl,
    /// TRL's JSON lines, pairs taken apart into labelled completions.
    TrlUnpairedJsonl,
    /// The columns of `trl-jsonl` as Parquet.
    TrlParquet,
    /// The columns of `trl-unpaired-jsonl` as Parquet.
    TrlUnpairedParquet,
    /// HALOs' JSON: a list of `pairwise_feedback` or `binary_feedback`.
    HalosJson,
}

/// The budget that every arm may spend, in one currency. Amounts are positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// Policy tokens, prompt and completion, through forward and backward (a pair counts both sequences).
    Tokens(u64),
    /// Completions trained on (a pair counts two).
    Examples(u64),
    /// Feedback labels: one a pair, one an unpaired completion, one a sample (or, for online DPO, a prompt's samples)
    /// that the gold reward is asked about.
    Labels(u64),
    /// Optimizer steps.
    Steps(u64),
    /// Analytic floating-point operations: policy, KL-term and reference passes.
    Flops(f64),
    /// Wall-clock seconds of training.
    Seconds(f64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuitesSpec {
    /// Names of shipped suites or paths of suite files.
    pub preference: Vec<String>,
    pub generation: Vec<String>,
    /// At most this many held-out examples a suite, drawn by their ids; 0: all.
    pub max_examples: usize,
}

/// The language model that judges suites with `judge = "llm"`. Keys are never part of a plan: `key` names the
/// environment variable that holds one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeSpec {
    /// An OpenAI-compatible endpoint, up to and without `/chat/completions`; empty: no such judge.
    pub url: String,
    /// The model's name, as the endpoint knows it.
    pub model: String,
    /// `pairwise`, or the path of a template file (`suites/judges/`).
    pub template: String,
    /// Hub id or directory of the reward model that judges suites with `judge = "reward-model"`; empty: none.
    pub reward_model: String,
    /// Environment variable that holds the key. The default one may be unset: then no key is sent.
    pub key: String,
    /// Questions under way at once.
    pub concurrency: usize,
    /// Seconds until a question is given up and asked again.
    pub timeout: f64,
    /// Further attempts after the first.
    pub retries: u32,
    /// Price of a million tokens of prompt and of reply, in any currency, for the count of cost.
    pub prompt_price: f64,
    pub reply_price: f64,
}

/// How differences between arms are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictSpec {
    /// Family-wise error rate of each family of comparisons (Holm): see `record::Family`.
    pub alpha: f64,
    /// The metrics that the plan is about, named before anything is run: comparisons of arms on these are
    /// one family, all others are secondary.
    pub primary: Vec<String>,
    /// Two arms are equivalent where the difference lies within ± this, per unit of the metric
    /// (for accuracies and win rates 0.02 is two points).
    pub equivalence_margin: f64,
    /// Sign flips of the permutation test, and resamples of the two-level bootstrap.
    pub resamples: usize,
    /// Seed of both.
    pub seed: u64,
}

/// One unit of work: an arm under a seed. A process, a CI shard or a Slurm task can run one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Stable: `<arm>-s<seed>-<first 6 hex digits of the content hash of all that determines the run>`.
    pub id: String,
    pub arm: Arm,
    pub seed: u64,
    pub budget: Budget,
    pub model: ModelSpec,
    pub data: DataSpec,
}
