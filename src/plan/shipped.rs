//! The plans that come with the binary, and how the command line's names find them.

use std::path::Path;

use super::overrides::Overrides;
use super::types::Plan;
use crate::base::error::{Context, HintExt, Result, unknown};

/// A plan file that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedPlan {
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Every shipped plan; a test holds that the folder holds no other.
        pub const SHIPPED: &[ShippedPlan] = &[
            $(ShippedPlan { name: $name, text: include_str!(concat!("../../suites/plans/", $name, ".toml")) }),*
        ];
    };
}

shipped![
    "quickstart",
    "hh-harmless",
    "feedback-fraction",
    "imbalance",
    "one-completion",
    "label-noise",
    "skip-sft",
    "sensitivity",
    "cost",
    "z0",
    "tuning",
    "rlhf",
    "rlhf-labels",
    "overoptimisation",
];

/// The plan that runs where none is named.
pub const DEFAULT_PLAN: &str = "quickstart";

impl Plan {
    /// The plan at a path (it ends in `.toml`, or has a separator), or the shipped plan of that name.
    ///
    /// # Errors
    /// A file that cannot be read, a name that is not shipped (the shipped ones are listed), or whatever
    /// [`Plan::parse`] finds.
    pub fn open(name: &str, overrides: &Overrides) -> Result<Self> {
        if name.ends_with(".toml") || name.contains(['/', '\\']) {
            let text =
                std::fs::read_to_string(Path::new(name)).with_context(|| format!("reading plan {name}"));
            return Plan::parse(
                &text.hint("`kto-eval plan show` prints a plan to start from")?,
                name,
                overrides,
            );
        }
        match SHIPPED.iter().find(|p| p.name == name) {
            Some(plan) => Plan::parse(plan.text, &format!("suites/plans/{name}.toml"), overrides),
            None => {
                let known: Vec<&str> = SHIPPED.iter().map(|p| p.name).collect();
                Err(unknown("shipped plan", name, &known)).hint("a path to a plan file ends in .toml")
            }
        }
    }
}
