//! A reward model: a Hugging Face sequence classifier with one label, run by this crate's engine.

use std::collections::BTreeMap;

use serde_json::json;

use super::task::{Grade, Judge, Task};
use crate::base::error::Result;
use crate::data::{Sequence, Tokenizer};
use crate::model::RewardModel;
use crate::suite::metric::Metric;

/// Says how good a completion is by the model's score; of two, the higher one wins, and equal texts tie.
///
/// What the model reads: where its tokenizer brings a chat template and the suite knows what was asked, that
/// conversation in the template; else prompt and completion as they stand, closed with EOS.
pub struct RewardJudge {
    model: RewardModel,
    tokenizer: Tokenizer,
}

impl RewardJudge {
    /// # Errors
    /// The tokenizer does not fit the model.
    pub fn new(model: RewardModel, tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.check_fits(model.decoder().config().vocab)?;
        Ok(Self { model, tokenizer })
    }

    fn ids(&self, task: &Task, completion: &str) -> Result<Vec<u32>> {
        if !task.asked.is_empty() && self.tokenizer.has_template() {
            let said = completion.trim();
            let messages = [
                json!({"role": "user", "content": task.asked}),
                json!({"role": "assistant", "content": said}),
            ];
            return self.tokenizer.encode(&self.tokenizer.template().render(&messages, false)?);
        }
        let mut ids = self.tokenizer.encode(&format!("{}{completion}", task.prompt))?;
        if ids.last() != Some(&self.tokenizer.eos()) {
            ids.push(self.tokenizer.eos());
        }
        Ok(ids)
    }

    fn context(&self) -> usize {
        self.model.decoder().config().max_positions
    }

    /// Scores in order; `None` for a text that is longer than the model's context. A text is scored once,
    /// however often it occurs: beside other texts its score would differ in the last bits.
    fn scores(&self, texts: &[(&Task, &str)]) -> Result<Vec<Option<f64>>> {
        let ids = texts.iter().map(|(task, said)| self.ids(task, said)).collect::<Result<Vec<_>>>()?;
        let fits = |ids: &&Vec<u32>| ids.len() <= self.context();
        let mut known: BTreeMap<&[u32], f64> =
            ids.iter().filter(fits).map(|ids| (ids.as_slice(), 0.0)).collect();
        // Where the prompt ends does not matter to a score.
        let sequences: Vec<Sequence> =
            known.keys().map(|ids| Sequence { ids: (*ids).into(), prompt_len: 1 }).collect();
        let scores = self.model.scores(&sequences.iter().collect::<Vec<_>>())?;
        known.values_mut().zip(scores).for_each(|(place, score)| *place = score);
        Ok(ids.iter().map(|ids| known.get(ids.as_slice()).copied()).collect())
    }
}

impl Judge for RewardJudge {
    fn refuses(&self, task: &Task) -> Result<Option<String>> {
        let (n, context) = (self.ids(task, "")?.len(), self.context());
        Ok((n > context).then(|| {
            format!("the prompt has {n} tokens for the reward model, and its context holds {context}")
        }))
    }

    fn grade(&self, task: &Task, completion: &str) -> Result<Grade> {
        Ok(self.grades(&[(task, completion)])?.pop().unwrap_or_default())
    }

    fn grades(&self, completions: &[(&Task, &str)]) -> Result<Vec<Grade>> {
        let grade = |reward: Option<f64>| Grade {
            reward,
            values: reward.map(|r| (Metric::JudgeReward, r)).into_iter().collect(),
            counts: Vec::new(),
        };
        Ok(self.scores(completions)?.into_iter().map(grade).collect())
    }
}
