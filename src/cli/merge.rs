//! `kto-eval merge ADAPTER --out DIR`.

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::output::{print, print_json};
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::launch;
use crate::model::SHARD_BYTES;

/// Writes an adapter and the base that it names as one checkpoint that transformers opens.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory (or hub id) with adapter_config.json and adapter_model.safetensors
    adapter: String,
    /// Revision on the hub
    #[arg(long, default_value = "main")]
    revision: String,
    /// Most megabytes (10⁶ bytes) of weights in one file
    #[arg(long, value_name = "MB", default_value_t = SHARD_BYTES / 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    max_shard_size: u64,
    /// Write in place of a model that the output folder holds
    #[arg(long)]
    force: bool,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("merge", &["--device", "--out", "--json", "--threads"])?;
    let out = common.out.as_deref();
    let out = out.ok_or_else(|| anyhow!("merge needs --out")).hint("a folder for the merged checkpoint")?;
    let device = common.device()?;
    let most = options.max_shard_size * 1_000_000;
    launch::merge(&options.adapter, &options.revision, out, most, options.force, device)?;
    match common.json {
        true => print_json(&json!({"model": out}))?,
        false => print(&format!("model: {}\n", out.display()))?,
    }
    Ok(Exit::Done)
}
