//! Reward models and learning from them: the scalar head, the surrogates, the online loop.

#[path = "rlhf/reward_model.rs"]
mod reward_model;
