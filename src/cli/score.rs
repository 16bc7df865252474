//! `kto-eval score --model P [--reference R] --data FILE`.

use clap::Args;

use super::args::Common;
use super::output::print;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::launch::{self, ScoreRequest};
use crate::plan::{DataSpec, Dtype};

/// Writes a CSV row for every completion: `example, side, prompt_tokens, completion_tokens, cut, logp,
/// reference_logp`. Sums are over completion tokens, EOS included, in nats.
#[derive(Debug, Args)]
pub struct Options {
    /// A second model, whose log-probs stand beside the first one's
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// Split of the data
    #[arg(long, default_value = "test")]
    split: String,
    /// Configuration or folder within the data set
    #[arg(long, default_value = "")]
    config: String,
    /// Sequences are cut to this many tokens
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    max_length: usize,
    /// Score only the first n examples; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_examples: usize,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let missing = |what: &str| anyhow!("score needs --{what}");
    let model = common.model.clone().ok_or_else(|| missing("model")).hint("a hub id or a directory")?;
    let source =
        common.data.clone().ok_or_else(|| missing("data")).hint("a hub id, a file or a directory")?;
    let request = ScoreRequest {
        model,
        reference: options.reference.clone(),
        revision: "main".to_owned(),
        dtype: Dtype::F32,
        data: DataSpec {
            source,
            config: options.config.clone(),
            split: options.split.clone(),
            max_length: options.max_length,
            max_examples: options.max_examples,
            ..DataSpec::default()
        },
    };
    let csv = launch::score_data(&request, common.device()?)?;
    match &common.out {
        None => print(&csv)?,
        Some(path) => std::fs::write(path, csv).with_context(|| format!("writing {}", path.display()))?,
    }
    Ok(Exit::Done)
}
