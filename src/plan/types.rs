//! The resolved plan. `wire` reads TOML into these; everything after works from these alone.

use serde::{Deserialize, Serialize};

use super::online::OnlineSpec;

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

/// A trainer that is a command. Its words may hold placeholders such as `{model}` (`plan::placeholders`).
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
    /// HALOs' JSON: a list of `pairwise_feedback` or `binary_feedback`.
    HalosJson,
}

/// The objective and its hyperparameters. `name()` is what a plan's `method = "…"` says.
///
/// Adding a method: a variant here, a file in `objective/`, a line in `objective::build`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Method {
    Sft,
    Dpo(DpoSpec),
    Kto(KtoSpec),
    Ipo(IpoSpec),
    Cdpo(SmoothedSpec),
    RobustDpo(SmoothedSpec),
    Hinge(BetaSpec),
    Simpo(SimpoSpec),
    Orpo(OrpoSpec),
    Cpo(LikelihoodSpec),
    Slic(LikelihoodSpec),
    ApoZero(BetaSpec),
    ApoDown(BetaSpec),
    SigmoidNorm(BetaSpec),
    SppoHard(BetaSpec),
    Nca(BetaSpec),
    Bco(BetaSpec),
    /// Whatever the arm's command does.
    External,
    /// Trains a reward model, not a policy.
    Reward,
    Rloo(OnlineSpec),
    Grpo(OnlineSpec),
    Ppo(OnlineSpec),
    PpoOffline(OnlineSpec),
    OnlineDpo(OnlineSpec),
    OnlineKto(OnlineSpec),
}

/// A method whose only hyperparameter is β > 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BetaSpec {
    pub beta: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpoSpec {
    pub beta: f64,
    /// Log-ratios are divided by their completion's tokens (TRL, HALOs); otherwise as in the paper.
    pub length_normalised: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmoothedSpec {
    pub beta: f64,
    /// Probability that a label is flipped, in [0, 0.5).
    pub label_smoothing: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimpoSpec {
    pub beta: f64,
    /// Target margin γ ≥ 0 (not the ratio γ/β).
    pub gamma: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrpoSpec {
    /// Weight of the odds-ratio term (the paper's λ).
    pub beta: f64,
    pub likelihood: Likelihood,
}

/// What a likelihood term covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// Prompt and completion (ORPO's authors, TRL).
    Sequence,
    Completion,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LikelihoodSpec {
    pub beta: f64,
    /// Weight of the chosen completions' likelihood, ≥ 0.
    pub alpha: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpoSpec {
    /// Strength of the pull towards the reference, β > 0.
    pub beta: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KtoSpec {
    pub beta: f64,
    /// λ_D and λ_U; `Auto` takes them from the class counts of the training data by the paper's rule.
    pub lambda: Lambda,
    pub z0: Z0,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lambda {
    Auto,
    /// (n_D + n_U) / 2n of each class: both classes weigh the same, and the mean weight is 1.
    Counts,
    Fixed {
        desirable: f64,
        undesirable: f64,
    },
}

/// How KTO's reference point z0 is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Z0 {
    /// Mean over the step of log π/π_ref of mismatched completions, clamped at 0; each prompt takes the
    /// completion of the example after it (HALOs).
    Next,
    /// The same with the completion of the example before it (TRL).
    Previous,
    /// A partner fixed before training: the data set's completions in reversed order within blocks of 1000
    /// (LLaMA-Factory's preprocessing).
    Reversed,
    /// No reference point (z0 = 0).
    Zero,
}

/// The budget that every arm may spend, in one currency. Amounts are positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// Policy tokens, prompt and completion, through forward and backward (a pair counts both sequences).
    Tokens(u64),
    /// Completions trained on (a pair counts two).
    Examples(u64),
    /// Optimizer steps.
    Steps(u64),
    /// Analytic floating-point operations: policy, KL-term and reference passes.
    Flops(f64),
    /// Wall-clock seconds of training.
    Seconds(f64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// A hub id, a Hugging Face directory, or `world` (the planted-truth world's own base checkpoint).
    pub source: String,
    pub revision: String,
    /// Reference model; empty: the starting checkpoint itself.
    pub reference: String,
    pub dtype: Dtype,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSpec {
    /// A hub id, a file, a directory, or `world`.
    pub source: String,
    pub revision: String,
    /// Configuration or folder within the data set (`harmless-base`); empty: none.
    pub config: String,
    pub split: String,
    /// `auto` detects it from the first rows and reports it.
    pub format: DataFormat,
    /// Sequences are cut to this many tokens, prompt and completion together.
    pub max_length: usize,
    /// Use only the first n examples; 0: all.
    pub max_examples: usize,
    /// What is done to the training labels; the held-out split stays as it is.
    pub feedback: FeedbackSpec,
    /// Options of the planted-truth world (used where `source` is `world`).
    pub world: WorldSpec,
}

/// `[data.feedback]`: less, rarer, poorer feedback than the training data hold, drawn with a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedbackSpec {
    /// Share of the labels (pairs, or labelled completions) that is kept, in (0, 1]. A smaller share is a subset
    /// of a larger one.
    pub fraction: f64,
    /// Probability with which a label is flipped, in [0, 0.5). What a smaller one flips a larger one flips too.
    pub flip: f64,
    /// Keep one completion of each prompt, drawn at random: what is left is no pair.
    pub one_completion: bool,
    /// Desirable completions for each undesirable one: the side that is too many is thinned out. 0: as they are.
    pub imbalance: f64,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    Auto,
    /// `chosen` and `rejected` are whole transcripts (`\n\nHuman: … \n\nAssistant: …`).
    HhTranscript,
    /// `prompt`, `chosen`, `rejected`; plain strings or lists of messages.
    TrlPaired,
    /// `chosen`, `rejected` share their beginning, which is the prompt; plain or lists of messages.
    TrlPairedImplicit,
    /// `prompt`, `completion`, `label`.
    TrlUnpaired,
}

/// The planted-truth world: a task generator, a gold reward, and the noise of its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldSpec {
    pub seed: u64,
    pub train_pairs: usize,
    pub heldout_pairs: usize,
    /// Bradley-Terry temperature T > 0: P(a preferred to b) = σ((r_a − r_b)/T).
    pub temperature: f64,
    /// A label is flipped with this probability after the draw, in [0, 0.5).
    pub flip: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// Completions a step (a pair counts two).
    pub batch_size: usize,
    /// Most tokens computed at once; the step is split into micro-batches of at most this many (a single
    /// longer sequence goes alone). Bounds activation memory; does not change the update. 512 keeps two cores as
    /// busy as 4,096 in a third less memory (27 M parameters); a GPU wants more.
    pub micro_tokens: usize,
    pub order: Order,
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// Share of the budget during which the learning rate rises linearly from 0, in [0, 1).
    pub warmup: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    /// Global gradient norm is clipped to this; 0: no clipping.
    pub max_grad_norm: f64,
    /// Train low-rank side paths and leave the weights as they are.
    pub lora: LoraSpec,
}

/// Every projection of every layer, as an entry of [`LoraSpec::target_modules`].
pub const ALL_LINEAR: &str = "all-linear";

/// LoRA (Hu et al. 2021, arXiv 2106.09685), with PEFT's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraSpec {
    /// r; 0: no adapter, all weights are trained.
    pub rank: usize,
    /// The side path is scaled by α/r.
    pub alpha: f64,
    /// Share of a side path's inputs that is dropped in training, in [0, 1).
    pub dropout: f64,
    /// Modules by the end of their name (`q_proj`, `mlp.down_proj`), or `all-linear`.
    pub target_modules: Vec<String>,
    /// Scale by α/√r instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub use_rslora: bool,
}

impl LoraSpec {
    /// Whether there is an adapter at all.
    pub fn is_on(&self) -> bool {
        self.rank > 0
    }

    /// α/r, or α/√r.
    pub fn scale(&self) -> f64 {
        let r = self.rank as f64;
        self.alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A new seeded permutation each epoch.
    Shuffled,
    /// As in the file, again from the start when it ends.
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    Constant,
    /// Falls linearly to 0 over the budget.
    Linear,
    /// Falls as a half cosine to 0 over the budget.
    Cosine,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuitesSpec {
    /// Names of shipped suites or paths of suite files.
    pub preference: Vec<String>,
    pub generation: Vec<String>,
    /// At most this many held-out examples a suite; 0: all.
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
    pub resamples: usize,
    /// Seed of the resampling.
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
