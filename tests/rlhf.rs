//! Reward models and learning from them: the scalar head, the surrogates, the online loop.

#[path = "rlhf/cli.rs"]
mod cli;
#[path = "rlhf/online.rs"]
mod online;
#[path = "rlhf/parting.rs"]
mod parting;
#[path = "cli/mod.rs"]
mod place;
#[path = "rlhf/ppo.rs"]
mod ppo;
#[path = "rlhf/reward_model.rs"]
mod reward_model;
#[path = "rlhf/surrogates.rs"]
mod surrogates;
#[path = "rlhf/trl.rs"]
mod trl;
#[path = "rlhf/world.rs"]
mod world;
