//! Options that name a model as judge.

use clap::Args;

use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::Overrides;
use crate::suite::{JudgeKind, Suite};

#[derive(Clone, Debug, Default, Args)]
pub struct JudgeOptions {
    /// Short for --set judge.url=…: an OpenAI-compatible endpoint for suites with judge = "llm", such as
    /// http://127.0.0.1:8000/v1 (key: environment variable KTO_EVAL_JUDGE_KEY)
    #[arg(long, value_name = "URL")]
    pub judge_url: Option<String>,
    /// Short for --set judge.model=…: the judge's name at the endpoint
    #[arg(long, value_name = "NAME")]
    pub judge_model: Option<String>,
    /// Short for --set judge.reward_model=…: a hub id or directory of a sequence classifier with one label, for
    /// suites with judge = "reward-model"
    #[arg(long, value_name = "MODEL")]
    pub judge_reward: Option<String>,
}

impl JudgeOptions {
    /// The first of these options that is given.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("--judge-url", &self.judge_url),
            ("--judge-model", &self.judge_model),
            ("--judge-reward", &self.judge_reward),
        ]
        .into_iter()
        .find_map(|(name, value)| value.as_ref().map(|_| name))
    }

    /// # Errors
    /// An option that names a judge which none of the suites asks.
    pub fn only_asked(&self, suites: &[Suite]) -> Result<()> {
        let llm = |s: &Suite| s.judge == JudgeKind::Llm;
        let reward = |s: &Suite| s.judge == JudgeKind::RewardModel && s.reward_model.is_empty();
        for (name, given, suite, idle) in [
            ("--judge-url", &self.judge_url, "heldout-judged", !suites.iter().any(llm)),
            ("--judge-model", &self.judge_model, "heldout-judged", !suites.iter().any(llm)),
            ("--judge-reward", &self.judge_reward, "heldout-rewarded", !suites.iter().any(reward)),
        ] {
            if given.is_some() && idle {
                return Err(anyhow!("{name} names a judge, and no suite asks it")).hint(format!(
                    "take a suite that does, such as {suite} (in a plan --set 'suites.generation=[\"{suite}\"]')"
                ));
            }
        }
        Ok(())
    }

    pub fn over(&self, overrides: Overrides) -> Overrides {
        let Self { judge_url, judge_model, judge_reward } = self.clone();
        Overrides { judge_url, judge_model, judge_reward, ..overrides }
    }
}
