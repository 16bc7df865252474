//! `kto-eval plan show|list`.

use clap::Subcommand;

use super::args::Common;
use super::output::{cut, print, print_json, table, width};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::plan::{DEFAULT_PLAN, Overrides, Plan, SHIPPED, ShippedPlan};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print a plan with every key, those that it does not say with their defaults
    Show {
        /// Path of a plan, or name of a shipped one
        #[arg(default_value = DEFAULT_PLAN)]
        plan: String,
    },
    /// List the shipped plans
    List,
}

pub fn run(verb: &Verb, common: &Common) -> Result<Exit> {
    match verb {
        Verb::Show { plan } => {
            common.only("plan show", &["--seed", "--json", "--set", "--model", "--data"])?;
            let plan = common.plan(plan)?;
            if common.json { print_json(&plan)? } else { print(&plan.to_toml_with_every_key())? }
        }
        Verb::List => {
            common.only("plan list", &["--json"])?;
            list(common)?;
        }
    }
    Ok(Exit::Done)
}

fn list(common: &Common) -> Result<()> {
    let open = |shipped: &ShippedPlan| Plan::open(shipped.name, &Overrides::default());
    let plans: Vec<Plan> = SHIPPED.iter().map(open).collect::<Result<_>>()?;
    if common.json {
        return print_json(&plans);
    }
    let mut rows = vec![];
    for plan in plans {
        let names: Vec<&str> = plan.arms.iter().map(|a| a.name.as_str()).collect();
        let arms = format!("{} arms: {}", names.len(), names.join(", "));
        let seeds = format!("{} seeds", plan.seeds.len());
        // The longest last: the others stand in columns, and it is what a narrow terminal cuts.
        rows.push(vec![plan.name, seeds, plan.budget.to_string(), plan.data.source, arms]);
    }
    let lines: Vec<String> = table(&rows).lines().map(|line| cut(line, width()) + "\n").collect();
    print(&lines.concat())
}
