//! `kto-eval train`: one run, for checking against another trainer or for a model to keep.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::every::CheckpointOptions;
use super::interrupt;
use super::output::{print, print_json};
use super::screen::Screen;
use super::tensorboard::Tensorboard;
use crate::base::error::{HintExt, Result, anyhow, bail};
use crate::base::exit::Exit;
use crate::launch;
use crate::plan::{Overrides, Plan};
use crate::record::{Status, files};

/// Every option is short for a key of a plan; --set takes the keys that have none.
#[derive(Debug, Args)]
pub struct Options {
    /// Method (`kto-eval methods` lists them)
    #[arg(long, default_value = "kto")]
    method: String,
    /// A hyperparameter of the method, such as beta=0.1 or z0=previous (repeatable)
    #[arg(long = "param", value_name = "KEY=VALUE")]
    params: Vec<String>,
    /// Reference model [default: the starting checkpoint]
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// Budget in optimizer steps
    #[arg(long, value_name = "N", conflicts_with_all = ["tokens", "examples"])]
    steps: Option<u64>,
    /// Budget in policy tokens [default, where no budget is given: 100000]
    #[arg(long, value_name = "N", conflicts_with = "examples")]
    tokens: Option<u64>,
    /// Budget in completions
    #[arg(long, value_name = "N")]
    examples: Option<u64>,
    /// Completions a step (a pair counts two) [default: 32]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Most tokens computed at once: a step is split into micro-batches of this many [default: 448]
    #[arg(long, value_name = "TOKENS")]
    micro_tokens: Option<usize>,
    /// shuffled or sequential [default: shuffled]
    #[arg(long)]
    order: Option<String>,
    /// [default: 5e-6]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// constant, linear or cosine [default: linear]
    #[arg(long)]
    schedule: Option<String>,
    /// Share of the budget over which the learning rate rises [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    warmup: Option<f64>,
    /// [default: 0.9]
    #[arg(long, value_name = "BETA1")]
    adam_beta1: Option<f64>,
    /// [default: 0.999]
    #[arg(long, value_name = "BETA2")]
    adam_beta2: Option<f64>,
    /// [default: 1e-8]
    #[arg(long, value_name = "EPSILON")]
    adam_epsilon: Option<f64>,
    /// [default: 0]
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// Clip the global gradient norm to this; 0: no clipping [default: 1]
    #[arg(long, value_name = "NORM")]
    max_grad_norm: Option<f64>,
    /// Cut sequences to this many tokens [default: 512]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Where the trained model goes [default: <out>/model]
    #[arg(long, value_name = "DIR")]
    save_model: Option<PathBuf>,
    /// Delete the records that the output folder holds
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    checkpoints: CheckpointOptions,
    #[command(flatten)]
    tensorboard: Tensorboard,
}

/// What is not given on the command line.
const PLAN: &str = "name = \"train\"\nseeds = [0]\nbudget = { tokens = 100000 }\n\
                    [data]\nheldout_fraction = 0.0\n[suites]\npreference = []\ngeneration = []\n[[arm]]\n";

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let plan = plan(options, common)?;
    let [spec] = plan
        .runs()
        .try_into()
        .map_err(|_| anyhow!("train makes one run, and the seeds are {:?}", plan.seeds))
        .hint("give one seed: --seed 1")?;
    let (device, out) = (common.device()?, common.folder(&plan.name));
    let model = options.save_model.clone().unwrap_or_else(|| out.join("model"));
    interrupt::listen();
    let mut screen = Screen::new(common.quiet).events(options.tensorboard.folder(&out));
    let folder = launch::TrainFolder {
        records: &out,
        model: &model,
        force: options.force,
        checkpoints: options.checkpoints.interval(),
    };
    let row = launch::train_one(&plan, &spec, device, folder, interrupt::flag(), &mut screen);
    screen.end();
    let Some(row) = row? else {
        screen.say(&format!("interrupted; the same command goes on from here ({})", out.display()));
        return Ok(Exit::Interrupted);
    };
    if common.json && row.status != Status::Failed {
        let model = (row.status == Status::Done).then_some(&model);
        print_json(&json!({"run": row, "steps": out.join(files::STEPS), "model": model}))?;
    }
    match row.status {
        Status::Failed => bail!("{}", row.note),
        Status::Diverged => {
            screen.say(&format!("diverged: {}", row.note));
            Ok(Exit::VerdictFailed)
        }
        Status::Done if common.json => Ok(Exit::Done),
        Status::Done => {
            print(&format!("steps: {}\nmodel: {}\n", out.join(files::STEPS).display(), model.display()))?;
            Ok(Exit::Done)
        }
    }
}

fn plan(options: &Options, common: &Common) -> Result<Plan> {
    let mut overrides = common.overrides();
    overrides.set = sets(options).into_iter().chain(overrides.set).collect();
    let text = format!("{PLAN}method = {}\n", toml::Value::String(options.method.clone()));
    // Hyperparameters are addressed by the arm's name, which is its method.
    let named = options.params.iter().map(|p| format!("arm.{}.{p}", options.method));
    let set = named.chain(overrides.set).collect();
    Plan::parse(&text, "train", &Overrides { set, ..overrides })
}

fn sets(o: &Options) -> Vec<String> {
    let number = |key: &str, x: Option<f64>| x.map(|x| format!("{key}={x:?}"));
    let count = |key: &str, n: Option<u64>| n.map(|n| format!("{key}={n}"));
    let size = |key: &str, n: Option<usize>| n.map(|n| format!("{key}={n}"));
    let word = |key: &str, w: &Option<String>| w.as_ref().map(|w| format!("{key}={w}"));
    [
        word("model.reference", &o.reference),
        count("budget.steps", o.steps),
        count("budget.tokens", o.tokens),
        count("budget.examples", o.examples),
        size("train.batch_size", o.batch_size),
        size("train.micro_tokens", o.micro_tokens),
        word("train.order", &o.order),
        number("train.learning_rate", o.learning_rate),
        word("train.schedule", &o.schedule),
        number("train.warmup", o.warmup),
        number("train.adam_beta1", o.adam_beta1),
        number("train.adam_beta2", o.adam_beta2),
        number("train.adam_epsilon", o.adam_epsilon),
        number("train.weight_decay", o.weight_decay),
        number("train.max_grad_norm", o.max_grad_norm),
        size("data.max_length", o.max_length),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::plan::TrainSpec;

    #[test]
    fn the_help_tells_the_defaults_of_a_plan() {
        let spec = TrainSpec::default();
        let mut cli = crate::cli::args::Cli::command();
        let help = cli.find_subcommand_mut("train").unwrap().render_long_help().to_string();
        for (option, value) in [
            ("--batch-size", spec.batch_size.to_string()),
            ("--micro-tokens", spec.micro_tokens.to_string()),
            ("--learning-rate", format!("{:e}", spec.learning_rate)),
            ("--warmup", spec.warmup.to_string()),
            ("--adam-beta1", spec.adam_beta1.to_string()),
            ("--adam-beta2", spec.adam_beta2.to_string()),
            ("--adam-epsilon", format!("{:e}", spec.adam_epsilon)),
            ("--weight-decay", spec.weight_decay.to_string()),
            ("--max-grad-norm", spec.max_grad_norm.to_string()),
        ] {
            let text = help.split(option).nth(1).unwrap_or_default();
            let text = text.split("\n      --").next().unwrap_or_default();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&format!("[default: {value}]")), "{option}: {text}");
        }
    }
}
