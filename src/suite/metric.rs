//! What is measured: each metric with its unit, its direction, and how it comes from the examples.

use serde::{Deserialize, Serialize};

use super::definition::Kind;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// Neither: reported, never judged.
    Neutral,
}

/// A metric of a suite; a suite file lists them by these names in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    RewardAccuracy,
    Margin,
    RewardChosen,
    RewardRejected,
    LogpAccuracy,
    NormalisedLogpAccuracy,
    Brier,
    CalibrationError,
    ChosenPerplexity,
    ChosenBitsPerByte,
    LabelAuc,
    RewardDesirable,
    RewardUndesirable,
    GoldReward,
    JudgeReward,
    WinRateBase,
    WinRateChosen,
    FlipRate,
    InvalidJudgments,
    ExactMatch,
    ExactMatchFlexible,
    PromptStrict,
    PromptLoose,
    InstructionStrict,
    InstructionLoose,
    CompletionTokens,
    Unfinished,
    #[serde(rename = "distinct_1")]
    Distinct1,
    #[serde(rename = "distinct_2")]
    Distinct2,
    Repetition,
    KlSequence,
    KlPerToken,
}

/// How a metric's value comes from its examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The mean over examples; each example has a value of its own, in `examples.csv`.
    Mean,
    /// A ratio of sums or a function of all examples: no value per example.
    Whole,
}

/// A metric's name and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    pub metric: Metric,
    pub name: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub direction: Direction,
    pub aggregation: Aggregation,
    pub meaning: &'static str,
}

impl Metric {
    pub fn info(self) -> &'static MetricInfo {
        METRICS.iter().find(|m| m.metric == self).expect("METRICS lists every metric; a test holds that")
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }
}

macro_rules! metrics {
    ($($metric:ident $name:literal $kind:ident $unit:literal $direction:ident $aggregation:ident $meaning:literal;)*) => {
        /// Every metric, in the order in which scores are listed.
        pub const METRICS: &[MetricInfo] = &[$(MetricInfo {
            metric: Metric::$metric,
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            direction: Direction::$direction,
            aggregation: Aggregation::$aggregation,
            meaning: $meaning,
        }),*];

        /// An exhaustive match: a metric that METRICS forgets does not compile.
        #[cfg(test)]
        fn listed(metric: Metric) -> &'static str {
            match metric { $(Metric::$metric => $name),* }
        }
    };
}

metrics! {
    RewardAccuracy "reward_accuracy" Preference "share" Higher Mean
        "share of pairs whose implicit reward β log π/π_ref is higher for chosen than for rejected (tie: one half)";
    Margin "margin" Preference "reward" Higher Mean
        "implicit reward of chosen minus that of rejected";
    RewardChosen "reward_chosen" Preference "reward" Neutral Mean
        "implicit reward β log π/π_ref of the chosen completion, summed over its tokens";
    RewardRejected "reward_rejected" Preference "reward" Neutral Mean
        "the same of the rejected completion";
    LogpAccuracy "logp_accuracy" Preference "share" Higher Mean
        "share of pairs where log π(chosen) exceeds log π(rejected), summed over the completion";
    NormalisedLogpAccuracy "normalised_logp_accuracy" Preference "share" Higher Mean
        "the same with the mean log-prob per completion token, which takes length out";
    Brier "brier" Preference "squared error" Lower Mean
        "(1 − σ(margin))²: Brier score of the Bradley-Terry probability that the policy implies";
    CalibrationError "calibration_error" Preference "share" Lower Whole
        "expected calibration error of σ(margin), ten equal bins of confidence over [0.5, 1]";
    ChosenPerplexity "chosen_perplexity" Preference "perplexity" Lower Whole
        "exp of the mean negative log-prob per token of the chosen completions";
    ChosenBitsPerByte "chosen_bits_per_byte" Preference "bits/byte" Lower Whole
        "negative log-prob of the chosen completions in bits per UTF-8 byte of their text (of a cut one: of what is left)";
    LabelAuc "label_auc" Labels "share" Higher Mean
        "share of all pairs of a desirable and an undesirable completion in which log π/π_ref is higher for the desirable one (area under the ROC curve; tie: one half)";
    RewardDesirable "reward_desirable" Labels "reward" Neutral Mean
        "implicit reward β log π/π_ref of the desirable completions, summed over their tokens";
    RewardUndesirable "reward_undesirable" Labels "reward" Neutral Mean
        "the same of the undesirable completions";
    GoldReward "gold_reward" Generation "reward" Higher Mean
        "the world's gold reward of the sample";
    JudgeReward "judge_reward" Generation "reward" Higher Mean
        "the reward model's score of the sample; its zero and its unit are the model's own";
    WinRateBase "win_rate_base" Generation "share" Higher Mean
        "share of samples that the judge prefers to the base model's (win 1, tie one half)";
    WinRateChosen "win_rate_chosen" Generation "share" Higher Mean
        "share of samples that the judge prefers to the chosen completion (win 1, tie one half)";
    FlipRate "flip_rate" Generation "share" Neutral Mean
        "share of the valid judgments that changed with the order of the two answers (ties): how far not to trust the judge";
    InvalidJudgments "invalid_judgments" Generation "share" Neutral Mean
        "share of the judgments that are no valid answer: they count as nothing";
    ExactMatch "exact_match" Generation "share" Higher Mean
        "share of samples whose marked final answer equals the reference";
    ExactMatchFlexible "exact_match_flexible" Generation "share" Higher Mean
        "share of samples whose last number equals the reference";
    PromptStrict "prompt_strict" Generation "share" Higher Mean
        "share of prompts with every instruction followed";
    PromptLoose "prompt_loose" Generation "share" Higher Mean
        "the same after the official relaxations (first or last line dropped, asterisks removed)";
    InstructionStrict "instruction_strict" Generation "share" Higher Whole
        "share of instructions followed";
    InstructionLoose "instruction_loose" Generation "share" Higher Whole
        "the same after the official relaxations";
    CompletionTokens "completion_tokens" Generation "tokens" Neutral Mean
        "length of the sample, EOS included";
    Unfinished "unfinished" Generation "share" Lower Mean
        "share of samples cut at the length limit";
    Distinct1 "distinct_1" Generation "share" Neutral Mean
        "distinct tokens among the tokens of a sample";
    Distinct2 "distinct_2" Generation "share" Neutral Mean
        "distinct bigrams among the bigrams of a sample";
    Repetition "repetition" Generation "share" Lower Mean
        "share of a sample's 4-grams of tokens that stood in it before";
    KlSequence "kl_sequence" Generation "nats" Neutral Mean
        "log π/π_ref of the sample: its mean estimates KL(π ‖ π_ref) where sampling is at temperature 1, unfiltered";
    KlPerToken "kl_per_token" Generation "nats/token" Neutral Whole
        "the same per sampled token (ratio of sums)";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_suite_file_says() {
        for info in METRICS {
            assert_eq!(listed(info.metric), info.name);
            assert_eq!(serde_json::to_value(info.metric).unwrap(), info.name, "serde and METRICS disagree");
        }
    }
}
