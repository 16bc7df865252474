//! Options that every verb takes.

use std::path::PathBuf;

use candle_core::Device;
use clap::{Args, Parser, Subcommand};

use super::{
    baseline, bench, compare, data, gate, gather, init, merge, plan, report, reward, score, suites, train,
    verify, winrate,
};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::launch;
use crate::plan::{Overrides, Plan};

const AFTER: &str = "\
Exit codes:
    0  the work is done and every check passed
    1  the work is done, and a verdict or a check failed (an arm diverged, a comparison is invalid)
    2  usage, input or environment error
  130  interrupted; the same command goes on from there

Environment:
  KTO_EVAL_CACHE   where base checkpoints, reference log-probs and a judge's replies are kept
                   (default: $XDG_CACHE_HOME/kto-eval, else ~/.cache/kto-eval)
  KTO_EVAL_JUDGE_KEY   the key of the language model that judges, where it takes one
  HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE   as everywhere with the Hugging Face hub";

/// Does KTO match DPO and SFT at the same cost? Trains under matched budgets, scores on held-out suites, and
/// says better, worse, equivalent or undecided.
#[derive(Debug, Parser)]
#[command(name = "kto-eval", version, after_help = AFTER, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train every arm under every seed, score them, and judge the differences
    Compare(compare::Options),
    /// Train one policy, step by step as another trainer would
    Train(Box<train::Options>),
    /// Write log-probs of every completion of a data set
    Score(score::Options),
    /// Merge the records of shards into one comparison, and judge it
    Gather(gather::Options),
    /// Measure a reward model on held-out pairs
    Reward(reward::Options),
    /// Draw the report again from the records of a comparison
    Report(report::Options),
    /// List, show and check suites
    #[command(subcommand)]
    Suites(suites::Verb),
    /// Win rates from pairwise judgments: raw, length-controlled, Bradley-Terry
    Winrate(winrate::Options),
    /// Read everything that a plan names and take one step with each arm
    Verify(verify::Options),
    /// Measure speed and memory on this machine, with a plan's model and data
    Bench(bench::Options),
    /// List the methods with their hyperparameters
    Methods,
    /// Look at data sets
    #[command(subcommand)]
    Data(data::Verb),
    /// Add an adapter to the base that it names, as one checkpoint
    Merge(merge::Options),
    /// Has a trainer become worse, slower or larger? Hold one folder of records against another
    Gate(gate::Options),
    /// Save, show and list the baselines that a gate compares with
    #[command(subcommand)]
    Baseline(baseline::Verb),
    /// Write a plan, a gate file and a CI workflow for a project that has none
    Init(init::Options),
    /// Show plans
    #[command(subcommand)]
    Plan(plan::Verb),
}

const AUTO: &str = "auto";

/// Options that read a plan or change it.
pub const PLANNED: [&str; 7] = ["--device", "--seed", "--json", "--set", "--model", "--data", "--threads"];

#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, global = true, default_value = AUTO, value_name = "DEVICE")]
    pub device: String,
    /// Output folder; for reward, and for score without --suite, a file
    #[arg(long, short, global = true, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Seeds in place of the plan's (repeat, or separate by commas)
    #[arg(long, global = true, value_name = "N", value_delimiter = ',')]
    pub seed: Vec<u64>,
    /// No progress on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Results on stdout as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Set any key of the plan, such as train.learning_rate=1e-5 or arm.kto.beta=0.2 (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Short for --set model.source=…: a hub id, a directory, or world
    #[arg(long, global = true, value_name = "MODEL")]
    pub model: Option<String>,
    /// Short for --set data.source=…: a hub id, a file, a directory, or world
    #[arg(long, global = true, value_name = "DATA")]
    pub data: Option<String>,
    /// Threads to compute with [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl Common {
    pub fn overrides(&self) -> Overrides {
        let (set, model, data) = (self.set.clone(), self.model.clone(), self.data.clone());
        Overrides { set, model, data, seeds: self.seed.clone(), ..Overrides::default() }
    }

    /// A plan by path or by shipped name, with the overrides in it.
    pub fn plan(&self, name: &str) -> Result<Plan> {
        Plan::open(name, &self.overrides())
    }

    /// Refuses what of these options is given and not among `used`: it would do nothing.
    ///
    /// # Errors
    /// With the option, and those that the verb has a use for.
    pub fn only(&self, verb: &str, used: &[&str]) -> Result<()> {
        let given = [
            ("--device", self.device != AUTO),
            ("--out", self.out.is_some()),
            ("--seed", !self.seed.is_empty()),
            ("--json", self.json),
            ("--set", !self.set.is_empty()),
            ("--model", self.model.is_some()),
            ("--data", self.data.is_some()),
            ("--threads", self.threads.is_some()),
        ];
        let Some((name, _)) = given.iter().find(|(name, given)| *given && !used.contains(name)) else {
            return Ok(());
        };
        Err(anyhow!("`kto-eval {verb}` has no use for {name}"))
            .hint(format!("leave it away; of the options of all verbs it takes {}", used.join(", ")))
    }

    /// `--out`, else `out/<name>`.
    pub fn folder(&self, name: &str) -> PathBuf {
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        // `.` and `..` would name another folder.
        let name = if name.chars().all(|c| c == '.') { name.replace('.', "-") } else { name };
        self.out.clone().unwrap_or_else(|| PathBuf::from("out").join(name))
    }

    /// Cores that the work may take: `--threads`, else all.
    pub fn cores(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, usize::from)
    }

    /// Opens the device, and settles the number of threads for the rest of the process.
    pub fn device(&self) -> Result<Device> {
        if let Some(threads) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
            pool.build_global().context("starting threads")?;
        }
        launch::device(&self.device)
    }
}
