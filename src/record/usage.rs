//! `judge.json`: what a language model as judge was asked and what it cost, over all commands that wrote to the
//! folder. Like times, it is no part of what two equal comparisons have in common: replies that the cache holds
//! cost nothing.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::files;
use crate::base::atomic;
use crate::base::error::{Context, Result};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeUsage {
    pub url: String,
    pub model: String,
    pub template: String,
    /// Pairs judged, each in both orders.
    pub matches: u64,
    /// Matches with a reply that holds no valid verdict: counted as nothing.
    pub invalid: u64,
    /// Matches whose verdict changed with the order: ties.
    pub flipped: u64,
    /// Questions that the endpoint answered, and those that the cache did.
    pub asked: u64,
    pub cached: u64,
    /// Attempts that failed and were repeated.
    pub repeated: u64,
    /// Questions that the endpoint would not answer: their matches are invalid.
    #[serde(default)]
    pub refused: u64,
    /// Replies that ended at the template's `max_tokens`: their matches are invalid.
    pub cut: u64,
    /// As the endpoint counts them; replies from the cache are not counted.
    pub prompt_tokens: u64,
    pub reply_tokens: u64,
    /// At the prices that the plan states, in its currency; 0 where it states none.
    pub cost: f64,
}

impl JudgeUsage {
    /// Adds these counts to the folder's, and returns the sums.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn add_to(&self, dir: &Path) -> Result<Self> {
        let sum = self.clone().plus(&Self::read(dir)?.unwrap_or_default());
        sum.write(dir)?;
        Ok(sum)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        atomic::write_held(&dir.join(files::JUDGE), (serde_json::to_string_pretty(self)? + "\n").as_bytes())
    }

    /// The folder's counts; `None` where no language model judged.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(files::JUDGE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| path.display().to_string()).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    pub(super) fn plus(mut self, other: &Self) -> Self {
        for (mine, theirs) in [
            (&mut self.matches, other.matches),
            (&mut self.invalid, other.invalid),
            (&mut self.flipped, other.flipped),
            (&mut self.asked, other.asked),
            (&mut self.cached, other.cached),
            (&mut self.repeated, other.repeated),
            (&mut self.refused, other.refused),
            (&mut self.cut, other.cut),
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.reply_tokens, other.reply_tokens),
        ] {
            *mine += theirs;
        }
        self.cost += other.cost;
        self
    }
}

impl fmt::Display for JudgeUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let valid = (self.matches - self.invalid).max(1) as f64;
        write!(
            f,
            "judge {}: {} matches in both orders, {} without a valid verdict, flip rate {:.1} %; {} questions asked \
             ({} attempts repeated), {} from the cache; {} prompt and {} reply tokens",
            self.model,
            self.matches,
            self.invalid,
            100.0 * self.flipped as f64 / valid,
            self.asked,
            self.repeated,
            self.cached,
            self.prompt_tokens,
            self.reply_tokens
        )?;
        if self.refused > 0 {
            write!(f, ", {} questions refused", self.refused)?;
        }
        if self.cut > 0 {
            write!(f, ", {} replies cut at max_tokens", self.cut)?;
        }
        if self.cost > 0.0 { write!(f, ", cost {:.4}", self.cost) } else { Ok(()) }
    }
}
