//! `kto-eval gather DIR`: records of shards become one comparison.

use std::path::PathBuf;

use clap::Args;

use super::args::Common;
use super::compare::show;
use super::output::width;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::launch;
use crate::record::plan_of;

#[derive(Debug, Args)]
pub struct Options {
    /// Where the whole comparison goes: the --out that the shards were given
    dir: PathBuf,
    /// Folders of shards [default: all in DIR/shards]
    shards: Vec<PathBuf>,
    /// Judge what is there, though runs are missing
    #[arg(long)]
    partial: bool,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("gather", &["--json"])?;
    let (dir, shards) = (&options.dir, options.shards.clone());
    let shards = if shards.is_empty() { launch::shard_folders(dir)? } else { shards };
    let Some(first) = shards.first() else {
        return Err(anyhow!("{} holds no shards", dir.display())).hint(
            "run `kto-eval compare PLAN --out DIR --shard i/n` for each i, or name the shards' folders",
        );
    };
    let gathered = launch::gather(&plan_of(first)?, dir, &shards)?;
    for note in &gathered.notes {
        eprintln!("{note}");
    }
    if !gathered.missing.is_empty() && !options.partial {
        let (n, missing) = (gathered.missing.len(), gathered.missing.join(", "));
        return Err(anyhow!("{n} runs have no row yet: {missing}"))
            .hint("run their shards again (they go on), or give --partial to judge what is there");
    }
    let judged = launch::judge(dir, width())?;
    show(dir, &judged, common)?;
    let well = gathered.lost == 0 && gathered.missing.is_empty() && judged.invalid.is_none();
    Ok(if well { Exit::Done } else { Exit::VerdictFailed })
}
