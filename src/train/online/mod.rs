//! Learning from a policy's own samples: draw, reward, compare with the reference, update. One loop for PPO, RLOO,
//! GRPO, online DPO and online KTO; what an algorithm is stands in `objective::online` and `objective`.
//!
//! Policy, optimizer, schedule, checks and ledger are those of the other methods. Policy and critic share one trunk,
//! and sampling reads the weights that the optimizer writes.

mod estimate;
mod job;
mod keep;
mod labels;
mod learn;
mod phases;
mod reward;
mod rollout;
mod run;
mod source;
mod surrogates;
mod symptoms;
mod update;

pub use job::{KEEP_BYTES, OnlineHooks, OnlineJob, OnlineOutcome};
pub(super) use keep::OnlineState;
pub use keep::{Keeping, Kept, NotAtAll};
pub use phases::{Phase, PhaseCost, Phases};
pub use reward::{GoldReward, RewardSource, Sample, heldout_margins, train_reward_model};
pub use rollout::{Prompt, RolloutMetrics, prompts};
pub use run::{train_online, train_online_in};
