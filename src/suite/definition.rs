//! A suite is data: a TOML file that says what is measured, on which examples, and why.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::model::generate::Decoding;
use crate::plan::DataFormat;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Log-probs of given completions, two of a prompt.
    Preference,
    /// Log-probs of given completions with labels.
    Labels,
    /// Samples, judged.
    Generation,
}

impl Kind {
    /// The folder of the shipped suites of this kind.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Preference | Kind::Labels => "preference",
            Kind::Generation => "generation",
        }
    }
}

/// Who says how good a sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeKind {
    /// Nobody: only length, repetition and divergence are reported.
    #[default]
    None,
    /// The planted-truth world's own reward.
    Gold,
    /// The final answer against the reference answer.
    ExactMatch,
    /// Checkable instructions (IFEval).
    Checks,
    /// A language model behind an OpenAI-compatible endpoint (`--judge-url`).
    Llm,
    /// A sequence classifier with one label (`--judge-reward`).
    RewardModel,
}

/// Whose completions a sample is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpponentKind {
    /// The starting checkpoint's sample of the same prompt.
    Base,
    /// The chosen (or reference) completion of the data.
    Chosen,
}

impl OpponentKind {
    pub fn name(self) -> &'static str {
        match self {
            OpponentKind::Base => "base",
            OpponentKind::Chosen => "chosen",
        }
    }

    pub fn win_rate(self) -> Metric {
        match self {
            OpponentKind::Base => Metric::WinRateBase,
            OpponentKind::Chosen => Metric::WinRateChosen,
        }
    }
}

/// A held-out suite. `suites/README.md` documents the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    pub name: String,
    pub kind: Kind,
    /// Why the suite is there, and how its numbers are to be read.
    pub analysis: String,
    pub licence: String,
    /// In words: how many examples, and of what.
    pub size: String,
    /// `plan` (the held-out split of the plan's own data), `world`, a hub id or a path.
    pub source: String,
    #[serde(default = "main")]
    pub revision: String,
    /// Configuration, folder or file within the source.
    #[serde(default)]
    pub config: String,
    #[serde(default = "test")]
    pub split: String,
    #[serde(default = "auto")]
    pub format: DataFormat,
    pub metrics: Vec<Metric>,
    /// Minijinja templates over a row's columns, for preference data of no known form.
    #[serde(default)]
    pub pair: Option<PairTemplates>,
    /// Section → subset → weight (RewardBench): a section's score is the weighted mean of its subsets'
    /// accuracies, the overall score the plain mean of the sections.
    #[serde(default)]
    pub sections: BTreeMap<String, BTreeMap<String, f64>>,
    /// Which columns of a file of prompts hold what.
    #[serde(default)]
    pub columns: Columns,
    /// Minijinja template over the row's columns that makes the prompt; empty: the prompt column as it is.
    #[serde(default)]
    pub template: String,
    /// Whether the prompt is a user's message, to be put into the tokenizer's chat template (the HH
    /// transcript form where it has none).
    #[serde(default)]
    pub chat: bool,
    #[serde(default)]
    pub few_shot: Option<FewShot>,
    /// How a judge of final answers reads them.
    #[serde(default)]
    pub answer: Option<AnswerRule>,
    #[serde(default)]
    pub decoding: Decoding,
    #[serde(default)]
    pub judge: JudgeKind,
    /// Hub id or directory of the judge `reward-model`; empty: the plan's.
    #[serde(default)]
    pub reward_model: String,
    #[serde(default)]
    pub opponents: Vec<OpponentKind>,
}

/// Column names of a file of prompts; empty: the file has no such column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    pub id: String,
    pub prompt: String,
    /// The reference answer or completion.
    pub answer: String,
    pub subset: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self { id: String::new(), prompt: "prompt".to_owned(), answer: String::new(), subset: String::new() }
    }
}

/// Solved examples before the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    pub split: String,
    pub count: usize,
    /// A solved example, over the row's columns.
    pub template: String,
    pub separator: String,
}

/// How `exact-match` reads a final answer; the expressions are the data set's convention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// The answer is group 1 of the first match.
    pub strict: String,
    /// The answer is the last match.
    pub flexible: String,
    /// What is removed from answer and reference before they are compared, in order.
    pub ignore: Vec<String>,
}

/// Templates that make a pair of a row whose form the readers do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTemplates {
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
    #[serde(default)]
    pub subset: String,
}

fn main() -> String {
    "main".to_owned()
}
fn test() -> String {
    "test".to_owned()
}
fn auto() -> DataFormat {
    DataFormat::Auto
}

impl Suite {
    /// Parses and checks a suite file's text; `origin` is its path, for messages.
    ///
    /// # Errors
    /// On TOML that does not parse (with line and column), unknown keys, and settings that contradict each
    /// other.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let suite: Suite =
            toml::from_str(text).map_err(|e| anyhow!("{origin}: {}", e.to_string().trim_end())).hint(
                "suites/README.md documents the format; `kto-eval suites show heldout` prints an example",
            )?;
        suite.check().with_context(|| format!("suite `{}` ({origin})", suite.name))?;
        Ok(suite)
    }

    /// Reads a suite file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading suite {}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The name that the file gives it, where records tell two suites of one name apart by their kind.
    pub fn stem(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}
