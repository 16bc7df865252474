//! Options that name a model as judge.

use clap::Args;

use crate::plan::Overrides;

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

    pub fn over(&self, overrides: Overrides) -> Overrides {
        let Self { judge_url, judge_model, judge_reward } = self.clone();
        Overrides { judge_url, judge_model, judge_reward, ..overrides }
    }
}
