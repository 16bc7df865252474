//! `kto-eval reward --model RM --data FILE`.

use clap::Args;

use super::args::Common;
use super::asked::{Keys, OPTIONS, TRAINING, asked};
use super::judge::JudgeOptions;
use super::output::{print, print_json};
use super::screen::Screen;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::data::split_or;
use crate::launch;
use crate::plan::DataSpec;

/// Measures a reward model on held-out pairs: accuracy and calibration. With --out, a CSV row for every pair
/// (`example, margin`: score of chosen minus score of rejected). A model is trained with
/// `kto-eval train --method reward`, or is any Hugging Face sequence classifier with one label.
#[derive(Debug, Args)]
pub struct Options {
    /// Split of the data [default: test, or what a single file calls itself]
    #[arg(long)]
    split: Option<String>,
    /// Configuration or folder within the data set
    #[arg(long, default_value = "")]
    config: String,
    /// Sequences are cut to this many tokens
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    max_length: usize,
    /// Use only the first n pairs; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_examples: usize,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("reward", &["--device", "--out", "--json", "--set", "--model", "--data", "--threads"])?;
    let missing = |what: &str| anyhow!("reward needs --{what}");
    let model = common.model.clone().ok_or_else(|| missing("model")).hint("a hub id or a directory")?;
    let source =
        common.data.clone().ok_or_else(|| missing("data")).hint("a hub id, a file, a directory or world")?;
    let data = DataSpec {
        split: options.split.clone().unwrap_or_else(|| split_or(&source, "test")),
        source,
        config: options.config.clone(),
        max_length: options.max_length,
        max_examples: options.max_examples,
        ..DataSpec::default()
    };
    let keys = Keys { taken: &["data."], but: &TRAINING, options: &OPTIONS };
    let data = asked("reward", common, &JudgeOptions::default(), &data, &keys)?.data;
    let mut screen = Screen::new(common.quiet);
    let measured = launch::measure_reward_model(&model, &data, &common.device()?, &mut screen);
    screen.end();
    let (pairs, margins, quality) = measured?;
    if let Some(path) = &common.out {
        let mut writer = csv::Writer::from_writer(vec![]);
        writer.write_record(["example", "margin"])?;
        for (pair, margin) in pairs.iter().zip(&margins) {
            writer.write_record([pair.id.as_str(), &margin.to_string()])?;
        }
        let bytes = writer.into_inner().map_err(|e| anyhow!("{e}"))?;
        std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    match common.json {
        true => print_json(&quality)?,
        false => print(&format!("{quality}\n"))?,
    }
    Ok(Exit::Done)
}
