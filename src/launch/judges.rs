//! The judges that a suite does not bring itself: a language model, and reward models by name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device};

use super::llm::judge_for;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::data::{Tokenizer, resolve_model};
use crate::model::RewardModel;
use crate::plan::JudgeSpec;
use crate::suite::judge::llm::{LlmJudge, Tally};
use crate::suite::judge::{Judge, RewardJudge};
use crate::suite::{JudgeKind, Suite};

/// What to do where a suite needs a reward model as its judge and none is named.
const NO_REWARD_MODEL: &str = "name one with --judge-reward MODEL (a directory or hub id of a sequence classifier with \
                               one label), in the plan as judge.reward_model, or in the suite as reward_model";

/// Made once for all suites.
#[derive(Default)]
pub struct Judges {
    llm: Option<LlmJudge>,
    /// By source.
    rewards: BTreeMap<String, RewardJudge>,
    /// The plan's reward model, for suites that name none.
    reward: String,
}

impl Judges {
    /// The judges that the suites need. A language model is not asked anything yet; reward models are read.
    ///
    /// # Errors
    /// A suite needs a judge that nobody names; a template or a model that cannot be read.
    pub fn of_suites(suites: &[Suite], spec: &JudgeSpec, device: &Device) -> Result<Self> {
        let llm = judge_for(suites, spec)?;
        let mut judges = Self { llm, rewards: BTreeMap::new(), reward: spec.reward_model.clone() };
        for suite in suites.iter().filter(|s| s.judge == JudgeKind::RewardModel) {
            let source = judges.reward_model(suite).to_owned();
            if source.is_empty() {
                return Err(anyhow!("suite `{}` is judged by a reward model, and none is named", suite.name))
                    .hint(NO_REWARD_MODEL);
            }
            if let Entry::Vacant(place) = judges.rewards.entry(source) {
                let judge = reward_judge(place.key(), device)?;
                place.insert(judge);
            }
        }
        Ok(judges)
    }

    /// The judge of a suite; `None` where the suite brings its own, or has none.
    pub fn of(&self, suite: &Suite) -> Option<&dyn Judge> {
        match suite.judge {
            JudgeKind::Llm => self.llm.as_ref().map(|judge| judge as &dyn Judge),
            JudgeKind::RewardModel => self.rewards.get(self.reward_model(suite)).map(|j| j as &dyn Judge),
            _ => None,
        }
    }

    pub fn llm(&self) -> Option<&LlmJudge> {
        self.llm.as_ref()
    }

    /// What the language model has been asked so far.
    pub fn tally(&self) -> Tally {
        self.llm.as_ref().map(LlmJudge::tally).unwrap_or_default()
    }

    /// What to tell of the questions asked since `before`.
    pub fn remarks(&self, before: &Tally) -> Vec<String> {
        self.llm.as_ref().map(|llm| llm.remarks(before)).unwrap_or_default()
    }

    fn reward_model<'a>(&'a self, suite: &'a Suite) -> &'a str {
        if suite.reward_model.is_empty() { &self.reward } else { &suite.reward_model }
    }
}

/// Reads a reward model with its tokenizer.
///
/// # Errors
/// A directory that is missing, or holds another kind of model.
pub(super) fn reward_judge(source: &str, device: &Device) -> Result<RewardJudge> {
    let read = || {
        let dir = resolve_model(source, "main")?;
        RewardJudge::new(RewardModel::load(&dir, DType::F32, device)?, Tokenizer::load(&dir)?)
    };
    read().with_context(|| format!("reward model {source}"))
}
