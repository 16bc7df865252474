//! How a continuation is drawn: what a suite file says under `[decoding]`.

use serde::{Deserialize, Serialize};

use crate::base::error::{Result, ensure};

/// Decoding settings. The defaults are greedy decoding of at most 128 tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    /// Most tokens generated for one example, EOS included.
    pub max_new_tokens: usize,
    /// 0: greedy (the most probable token, the lowest id among equals).
    pub temperature: f64,
    /// Keep the k most probable tokens (and those equal to the last of them); 0: all.
    pub top_k: usize,
    /// Keep the smallest set of most probable tokens whose probability reaches this (nucleus sampling,
    /// arXiv 1904.09751), in (0, 1]; 1: all.
    pub top_p: f64,
    /// Keep tokens at least this share as probable as the most probable one (arXiv 2407.01082), in [0, 1).
    pub min_p: f64,
    /// Divides the positive and multiplies the negative logits of tokens that stand in the prompt or in the
    /// completion so far (CTRL, arXiv 1909.05858); 1: none.
    pub repetition_penalty: f64,
    /// The completion ends before the first of these.
    pub stop: Vec<String>,
    /// Mixed with the run's seed; change it for another draw of the same suite.
    pub seed: u64,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl Decoding {
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        ensure!(self.max_new_tokens > 0, "decoding.max_new_tokens is 0 (it must be at least 1)");
        let (t, p, m) = (self.temperature, self.top_p, self.min_p);
        ensure!(t.is_finite() && t >= 0.0, "decoding.temperature is {t} (0 for greedy, or positive)");
        ensure!(p > 0.0 && p <= 1.0, "decoding.top_p is {p} (it must be in (0, 1])");
        ensure!((0.0..1.0).contains(&m), "decoding.min_p is {m} (it must be in [0, 1))");
        let r = self.repetition_penalty;
        ensure!(r.is_finite() && r > 0.0, "decoding.repetition_penalty is {r} (positive; 1 for none)");
        ensure!(self.stop.iter().all(|s| !s.is_empty()), "decoding.stop holds an empty string");
        Ok(())
    }

    /// Whether any token may be drawn.
    pub fn keeps_all(&self) -> bool {
        self.top_k == 0 && self.top_p == 1.0 && self.min_p == 0.0
    }

    pub fn greedy(&self) -> bool {
        self.temperature == 0.0
    }
}
