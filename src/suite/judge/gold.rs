//! The planted-truth world's own reward.

use super::task::{Grade, Judge, Task};
use crate::base::error::Result;
use crate::data::world::World;
use crate::suite::metric::Metric;

pub struct Gold<'a>(pub &'a World);

impl Judge for Gold<'_> {
    fn refuses(&self, task: &Task) -> Result<Option<String>> {
        let known = !self.0.gold_reward(&task.prompt, "").is_nan();
        Ok((!known).then(|| "the prompt is not of the planted-truth world".to_owned()))
    }

    fn grade(&self, task: &Task, completion: &str) -> Result<Grade> {
        let reward = self.0.gold_reward(&task.prompt, completion);
        Ok(Grade { reward: Some(reward), values: vec![(Metric::GoldReward, reward)], counts: Vec::new() })
    }
}
