//! One struct a CSV file, one field a column, in column order. Times and memory stand last in their rows,
//! so that byte-identity of everything else can be checked by cutting columns.

use serde::{Deserialize, Serialize};

/// Version of this schema, written to `environment.json`.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Done,
    /// NaN, loss explosion or dead gradients; the rows up to there stay.
    Diverged,
    Failed,
}

/// Contestants that ought to lose have scores and no run; their runs and arms are named `sentinel-<name>`.
pub const SENTINEL: &str = "sentinel-";

/// `runs.csv`: a row per arm × seed. The ledger, then what it ended with, then time and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    pub run: String,
    pub arm: String,
    pub method: String,
    pub seed: u64,
    pub status: Status,
    /// Why it did not end well; empty otherwise.
    pub note: String,
    pub steps: u64,
    /// Completions trained on (a pair counts two).
    pub examples: u64,
    /// Feedback labels seen: one a pair, one an unpaired completion, for SFT one a completion.
    pub labels: u64,
    /// Policy tokens forward and backward, as sequences (prompt counted for each completion).
    pub policy_tokens: u64,
    /// The part of them that a loss reads.
    pub completion_tokens: u64,
    /// Tokens really computed: shared prompts once.
    pub computed_tokens: u64,
    /// Policy tokens forward only, for KTO's z0.
    pub kl_tokens: u64,
    /// Reference tokens that this run needed (whether or not a cache had them).
    pub reference_tokens: u64,
    pub flops: f64,
    pub epochs: f64,
    /// Numbers that training changes: all weights, or an adapter's.
    #[serde(default)]
    pub trained_parameters: u64,
    pub final_loss: f64,
    /// Hash of the trained weights.
    pub weights: String,
    pub train_seconds: f64,
    /// policy_tokens / train_seconds.
    pub tokens_per_second: f64,
    pub reference_seconds: f64,
    pub score_seconds: f64,
    /// Resident memory of the process when training began, model and data loaded, MiB.
    pub start_host_mib: f64,
    /// Peak resident memory of the process during training, MiB.
    pub peak_host_mib: f64,
    /// Peak device memory during training, MiB; 0 on CPU.
    pub peak_device_mib: f64,
}

/// `trainers.csv`: a row per run of an external trainer, however it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    /// `exit 0`, `signal 9`, `time limit`, `interrupted`.
    pub ended: String,
    /// Path of its log, relative to the folder.
    pub log: String,
    /// Bytes that it wrote, those included that were not kept.
    pub log_bytes: u64,
    pub wall_seconds: f64,
    /// User and system time of the whole process tree.
    pub cpu_seconds: f64,
    /// Peak over time of the resident memory of all its processes together, MiB (shared pages count each time).
    pub peak_tree_mib: f64,
    /// The same of device memory, as NVML tells it; empty where there is no NVIDIA driver.
    pub peak_device_mib: Option<f64>,
}

/// `steps.csv`: a row per optimizer step. Empty cells: not applicable to the method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub step: u64,
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Mean implicit reward β log π/π_ref of chosen or desirable completions.
    pub reward_chosen: Option<f64>,
    pub reward_rejected: Option<f64>,
    pub margin: Option<f64>,
    /// Share of pairs with a positive margin.
    pub accuracy: Option<f64>,
    /// KTO's z0 before and after the clamp at 0.
    pub kl_unclamped: Option<f64>,
    pub kl: Option<f64>,
    /// How flat KTO's loss is where the step's completions stand: mean of 1 − 4 σ(s) σ(−s), s = β(r − z0). 0 where
    /// the gradient is steepest, 1 where it has vanished.
    #[serde(default)]
    pub saturation: Option<f64>,
    /// Completions of each class in the step.
    pub desirable: u64,
    pub undesirable: u64,
    /// Mean log-prob per completion token, chosen or desirable completions.
    pub logp_chosen: Option<f64>,
    pub logp_rejected: Option<f64>,
    pub policy_tokens: u64,
    pub completion_tokens: u64,
    pub kl_tokens: u64,
    /// Policy tokens since the start.
    pub total_policy_tokens: u64,
    pub seconds: f64,
}

/// `scores.csv`: a row per run, suite and metric. Run `base` stands for the starting checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub suite: String,
    /// `all`, or a subset of the suite.
    pub subset: String,
    pub metric: String,
    pub value: f64,
    /// Examples behind it.
    pub n: u64,
    /// Clustered by prompt.
    pub standard_error: f64,
    pub unit: String,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Higher,
    Lower,
    /// Neither is better: reported, never judged.
    Neutral,
}

/// `examples.csv`: a row per run, suite, example and metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub suite: String,
    pub subset: String,
    pub example: String,
    /// Examples of one cluster (one prompt) are resampled together.
    pub cluster: String,
    pub metric: String,
    pub value: f64,
}

/// `samples.jsonl`: an object per run, generation suite and prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub suite: String,
    pub subset: String,
    pub example: String,
    pub prompt: String,
    pub completion: String,
    pub tokens: u64,
    /// Ended with EOS (not cut at the limit).
    pub finished: bool,
    /// Reward of the completion where the judge gives one.
    pub reward: Option<f64>,
    /// Opponent name → (its completion, its reward, preference for `completion` in [0, 1]).
    pub opponents: Vec<Opponent>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opponent {
    /// `base` or `chosen`.
    pub name: String,
    pub completion: String,
    pub reward: Option<f64>,
    /// 1: the sample wins, 0: it loses, 0.5: a tie.
    pub preference: f64,
}

/// `judgments.jsonl`: an object per match of two completions. `kto-eval winrate` reads the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgmentRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub suite: String,
    /// Id of the example.
    pub id: String,
    /// Contestants by name: arms, `base`, `chosen`, sentinels.
    pub candidate: String,
    pub baseline: String,
    /// 1: the candidate wins, 0: it loses, 0.5: a tie; null: the judge gave no valid answer.
    pub preference: Option<f64>,
    /// Whether the verdict changed with the order of the two; null where the judge sees no order.
    pub flipped: Option<bool>,
    /// In characters.
    pub candidate_length: u64,
    pub baseline_length: u64,
}

/// `winrates.csv`: a row per suite and pair of contestants that met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WinRateRow {
    pub suite: String,
    pub candidate: String,
    pub baseline: String,
    /// Valid judgments behind it, over all seeds, and their prompts.
    pub n: u64,
    pub prompts: u64,
    /// Win + half tie, a share.
    pub win_rate: f64,
    /// Clustered by prompt.
    pub standard_error: f64,
    pub wins: u64,
    pub losses: u64,
    pub ties: u64,
    /// Judgments without a valid answer, not in `n`.
    pub invalid: u64,
    /// AlpacaEval's length-controlled win rate, a share; empty: not computed.
    pub length_controlled: Option<f64>,
}

/// `strengths.csv`: a row per suite and contestant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrengthRow {
    pub suite: String,
    pub contestant: String,
    /// Bradley-Terry, logit scale, mean 0 over the contestants of its island.
    pub strength: f64,
    /// Bounds of the 1 − α interval of a bootstrap over prompts.
    pub low: f64,
    pub high: f64,
    /// Contestants of one suite that a chain of judgments joins share a number, from 0; strengths of different islands do not
    /// compare. Earlier versions left the column out.
    #[serde(default)]
    pub island: u64,
}

/// `comparisons.csv`: a row per suite, metric and pair of arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    pub suite: String,
    pub subset: String,
    pub metric: String,
    pub family: Family,
    pub arm_a: String,
    pub arm_b: String,
    pub mean_a: f64,
    pub mean_b: f64,
    /// mean_a − mean_b.
    pub difference: f64,
    pub standard_error: f64,
    /// Bounds of the 1 − α interval.
    pub low: f64,
    pub high: f64,
    pub p: f64,
    /// After Holm over the comparisons of its family.
    pub p_adjusted: f64,
    /// p of the equivalence test (two one-sided tests against ± margin).
    pub p_equivalence: f64,
    pub margin: f64,
    pub verdict: Verdict,
    pub seeds: u64,
    pub examples: u64,
    pub clusters: u64,
    /// Smallest true difference that this design finds with probability 0.8.
    pub detectable: Option<f64>,
    /// Variance of a difference between seeds, between prompts, by the judge (of one that was asked in both orders)
    /// and by what is left (sampling, seed × prompt). Absent: cannot be told.
    #[serde(default)]
    pub variance_seed: Option<f64>,
    #[serde(default)]
    pub variance_prompt: Option<f64>,
    #[serde(default)]
    pub variance_judge: Option<f64>,
    #[serde(default)]
    pub variance_residual: Option<f64>,
    /// p of flipping the signs of whole prompts: of these checkpoints, the seeds held fixed.
    #[serde(default)]
    pub p_permutation: Option<f64>,
    /// p of McNemar's test, for metrics that are right or wrong (ties one half).
    #[serde(default)]
    pub p_mcnemar: Option<f64>,
    /// Bounds of the studentised two-level bootstrap; absent below four seeds.
    #[serde(default)]
    pub bootstrap_low: Option<f64>,
    #[serde(default)]
    pub bootstrap_high: Option<f64>,
    /// The verdict as a sentence.
    pub words: String,
}

/// Comparisons that are corrected for multiplicity together. One family for the plan's question, so that
/// looking at many side effects does not cost the power to answer it, nor lend its α to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Trained arm against trained arm on a metric that the plan names as primary.
    Primary,
    /// Trained arm against the starting checkpoint on a primary metric.
    Base,
    /// Every other metric: exploratory.
    Secondary,
}

/// What a comparison of arm a with arm b says, seen from a.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Better,
    Worse,
    Equivalent,
    Undecided,
    /// The budgets did not match, a sentinel won, or an arm has no rows: no verdict.
    Invalid,
}

/// `rollouts.csv`: a row per rollout of a method that learns from samples. Empty cells: not applicable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    pub rollout: u64,
    /// First optimizer step that learns from it; 0: none does.
    pub step: u64,
    pub prompts: u64,
    pub samples: u64,
    /// Mean reward that is learned from, KL penalty aside: the proxy, where a reward model gives it.
    pub reward: f64,
    pub reward_deviation: f64,
    /// Mean gold reward of the same samples, where the world knows it.
    pub gold: Option<f64>,
    /// Mean over samples of log π/π_ref, nats.
    pub kl: Option<f64>,
    pub kl_per_token: Option<f64>,
    /// Mean −log π per sampled token, nats.
    pub entropy: Option<f64>,
    /// Mean tokens of a sample.
    pub length: f64,
    /// Shares of samples.
    pub empty: f64,
    pub unfinished: f64,
    /// Strength of the KL penalty.
    pub beta: f64,
    pub advantage_deviation: Option<f64>,
    /// Share of ratios cut off by the clip.
    pub clipped: Option<f64>,
    /// Largest |ratio − 1| of the first pass.
    pub first_ratio: Option<f64>,
    pub value_loss: Option<f64>,
    /// Prompts whose samples all had one reward.
    pub ties: u64,
    /// Prompt and new tokens through forward.
    pub sampled_tokens: u64,
    pub seconds: f64,
}

/// `phases.csv`: a row per phase of a run that learns from samples; they add up to the run's FLOPs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseRow {
    pub run: String,
    pub arm: String,
    pub seed: u64,
    /// `reward-model`, `sampling`, `scoring`, `log-probs` or `optimisation`.
    pub phase: String,
    /// Tokens through forward only.
    pub forward_tokens: u64,
    /// Tokens through forward and backward.
    pub trained_tokens: u64,
    pub flops: f64,
    pub seconds: f64,
}
