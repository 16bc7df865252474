//! The planted-truth world's own reward.

use super::task::{Grade, Judge, Task};
use crate::base::error::Result;
use crate::data::world::World;
use crate::suite::metric::Metric;

pub struct Gold<'a>(pub &'a World);

impl Judge for Gold<'_> {
    fn grade(&self, task: &Task, completion: &str) -> Result<Grade> {
        let reward = self.0.gold_reward(&task.prompt, completion);
        Ok(Grade { reward: Some(reward), values: vec![(Metric::GoldReward, reward)], counts: Vec::new() })
    }
}
