//! `kto-eval score --model P [--reference R] (--data FILE | --suite NAME …)`.

use clap::Args;

use super::args::Common;
use super::asked::{Keys, OPTIONS, TRAINING, asked};
use super::judge::JudgeOptions;
use super::output::{print, print_json, table};
use super::screen::Screen;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::data::split_or;
use crate::launch::{self, ScoreRequest, SuiteRequest, SuiteScores};
use crate::plan::{DataSpec, Dtype, Plan, Quantize};
use crate::record::ScoreRow;
use crate::suite::{ALL, Suite, find_any};

/// Without --suite, writes a CSV row for every completion of --data: `example, side, prompt_tokens,
/// completion_tokens, logp, reference_logp`. Sums are over completion tokens, EOS included, in nats.
///
/// With --suite, scores the model on suites and writes a folder: scores.csv, examples.csv, logps.csv,
/// samples.jsonl, judgments.jsonl (default: out/score-MODEL). A reference makes implicit rewards, divergence and
/// win rates against it.
#[derive(Debug, Args)]
pub struct Options {
    /// A suite by name (preference/world where two share one) or path; repeatable
    #[arg(long, value_name = "SUITE")]
    suite: Vec<String>,
    /// A second model, whose log-probs stand beside the first one's
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// Split of the data [default: test, or what a single file calls itself]
    #[arg(long)]
    split: Option<String>,
    /// Ask about what a comparison on these data holds out: the split data.heldout_split, or of a single file the share
    /// data.heldout_fraction of its prompts (with --suite; both by --set)
    #[arg(long, requires = "suite", conflicts_with = "split")]
    heldout: bool,
    /// Configuration or folder within the data set
    #[arg(long, default_value = "")]
    config: String,
    /// Sequences are cut to this many tokens
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    max_length: usize,
    /// Score only the first n examples; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_examples: usize,
    /// Branch, tag or commit of the models on the hub
    #[arg(long, default_value = "main", value_name = "REVISION")]
    revision: String,
    /// Keep the weights (an adapter's base) in blocks, as a plan's model.quantize does: none, q8_0, q6_k, q5_k, q4_k, q4_0
    #[arg(long, default_value = "none", value_name = "TYPE")]
    quantize: Quantize,
    /// Delete the scores that the output folder holds (with --suite)
    #[arg(long, requires = "suite")]
    force: bool,
    #[command(flatten)]
    judge: JudgeOptions,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let on_suites = !options.suite.is_empty();
    let (more, keys): (&[&str], &[&str]) = match on_suites {
        true => (&["--seed", "--json"], &["data.", "judge.", "seeds"]),
        false => (&[], &["data."]),
    };
    let always = ["--device", "--out", "--set", "--model", "--data", "--threads"];
    let verb = if on_suites { "score --suite" } else { "score" };
    common.only(verb, &[&always, more].concat())?;
    if !on_suites && let Some(name) = options.judge.given() {
        return Err(anyhow!("{name} names a judge, and no suite asks one")).hint("name suites with --suite");
    }
    let missing = |what: &str| anyhow!("score needs --{what}");
    let model = common.model.clone().ok_or_else(|| missing("model")).hint("a hub id or a directory")?;
    if !on_suites && common.data.is_none() {
        return Err(missing("data")).hint("a hub id, a file or a directory; or name suites with --suite");
    }
    let keys = Keys {
        taken: keys,
        but: if options.heldout { &TRAINING[..1] } else { &TRAINING },
        options: &OPTIONS,
    };
    let plan = asked(verb, common, &options.judge, &options.data(common), &keys)?;
    if on_suites {
        return self::on_suites(options, common, model, plan);
    }
    let request = ScoreRequest {
        model,
        reference: options.reference.clone(),
        revision: options.revision.clone(),
        dtype: Dtype::F32,
        quantize: options.quantize,
        data: plan.data,
    };
    let csv = launch::score_data(&request, common.device()?)?;
    match &common.out {
        None => print(&csv)?,
        Some(path) => std::fs::write(path, csv).with_context(|| format!("writing {}", path.display()))?,
    }
    Ok(Exit::Done)
}

impl Options {
    fn data(&self, common: &Common) -> DataSpec {
        let source = common.data.clone().unwrap_or_default();
        let usual = if self.heldout { "train" } else { "test" };
        DataSpec {
            split: self.split.clone().unwrap_or_else(|| split_or(&source, usual)),
            source,
            config: self.config.clone(),
            max_length: self.max_length,
            max_examples: self.max_examples,
            ..DataSpec::default()
        }
    }
}

fn on_suites(options: &Options, common: &Common, model: String, plan: Plan) -> Result<Exit> {
    let suites: Vec<Suite> = options.suite.iter().map(|s| find_any(s)).collect::<Result<_>>()?;
    options.judge.only_asked(&suites)?;
    let request = SuiteRequest {
        reference: options.reference.clone(),
        revision: options.revision.clone(),
        dtype: Dtype::F32,
        quantize: options.quantize,
        max_examples: plan.data.max_examples,
        data: plan.data,
        suites,
        heldout: options.heldout,
        judge: plan.judge,
        seeds: plan.seeds,
        // The whole of its path: models of several runs end in `model`.
        out: common.folder(&format!("score-{model}")),
        force: options.force,
        model,
    };
    let mut screen = Screen::new(common.quiet);
    let found = launch::score_suites(&request, common.device()?, &mut screen);
    screen.end();
    let found = found?;
    if common.json {
        print_json(&found.scores)?
    } else {
        print(&text(&found, &request))?
    }
    Ok(Exit::Done)
}

fn text(found: &SuiteScores, request: &SuiteRequest) -> String {
    let number = |x: f64| if x.is_finite() { format!("{x:.4}") } else { "n/a".to_owned() };
    let row = |s: &ScoreRow| {
        let value = format!("{} ± {}", number(s.value), number(s.standard_error));
        vec![s.suite.clone(), s.run.clone(), s.metric.clone(), value, s.unit.clone(), format!("n = {}", s.n)]
    };
    let rows: Vec<Vec<String>> = found.scores.iter().filter(|s| s.subset == ALL).map(row).collect();
    let judge = found.judge.as_ref().map(|j| format!("{j}\n")).unwrap_or_default();
    format!("{}{judge}rows: {}\n", table(&rows), request.out.display())
}
