//! What is trained on: the starting checkpoint, the data, the planted-truth world.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// A hub id, a Hugging Face directory, or `world` (the planted-truth world's own base checkpoint).
    pub source: String,
    pub revision: String,
    /// Reference model; empty: the starting checkpoint itself.
    pub reference: String,
    pub dtype: Dtype,
    /// Keep the frozen base of adapters in blocks of few bits (QLoRA).
    pub quantize: Quantize,
}

/// Types of a frozen base, as llama.cpp and candle name them: bits a number, and how many share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantize {
    #[default]
    #[serde(rename = "none")]
    None,
    /// 8.5 bits, blocks of 32.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 6.6 bits, blocks of 256.
    #[serde(rename = "q6_k")]
    Q6k,
    /// 5.5 bits, blocks of 256.
    #[serde(rename = "q5_k")]
    Q5k,
    /// 4.5 bits, blocks of 256.
    #[serde(rename = "q4_k")]
    Q4k,
    /// 4.5 bits, blocks of 32.
    #[serde(rename = "q4_0")]
    Q4_0,
}

impl Quantize {
    pub const ALL: [Self; 6] = [Self::None, Self::Q8_0, Self::Q6k, Self::Q5k, Self::Q4k, Self::Q4_0];

    /// As a plan writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Q8_0 => "q8_0",
            Self::Q6k => "q6_k",
            Self::Q5k => "q5_k",
            Self::Q4k => "q4_k",
            Self::Q4_0 => "q4_0",
        }
    }

    pub fn is_on(self) -> bool {
        self != Self::None
    }
}

impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|q| q.name() == word)
            .ok_or_else(|| format!("unknown type `{word}` (known: {})", known.join(", ")))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    /// Mixed precision: weights and activations in bf16, gradients, moments and master weights in f32. On CUDA.
    Bf16,
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
    /// The split that suites on the plan's own data ask about.
    pub heldout_split: String,
    /// Share of the prompts that is held out where training and held-out split are the same rows (a single file), drawn
    /// by the prompts' text; 0: none.
    pub heldout_fraction: f64,
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
    /// `prompt`, `completion`: desirable completions, as SFT learns from them.
    TrlPromptCompletion,
    /// `messages`: whole conversations, whose last reply is a desirable completion.
    TrlMessages,
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
