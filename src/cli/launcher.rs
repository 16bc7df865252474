//! `--launcher` and `--jobs`.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::args::Common;
use super::interrupt;
use super::screen::Screen;
use crate::base::error::Result;
use crate::launch::{Finished, Items, compare_local, compare_slurm, this_program};
use crate::plan::Plan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Launcher {
    /// Processes side by side on this machine, which share its cores
    Local,
    /// A job array on Slurm, by the plan's [slurm] section
    Slurm,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct LauncherOptions {
    /// Run the plan's runs side by side
    #[arg(long, value_name = "WHERE", conflicts_with_all = ["dry_run", "tensorboard"])]
    launcher: Option<Launcher>,
    /// Shards side by side [default: 2 locally, one a run on Slurm]
    #[arg(long, value_name = "N", requires = "launcher", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl LauncherOptions {
    /// `None`: the runs are done in this process.
    pub fn items(
        &self,
        common: &Common,
        checkpoint_every: String,
        runs: usize,
    ) -> Result<Option<(Launcher, Items)>> {
        let Some(launcher) = self.launcher else { return Ok(None) };
        let (default, shared) = match launcher {
            Launcher::Local => (2, true),
            Launcher::Slurm => (runs, false),
        };
        let jobs = self.jobs.map_or(default, usize::from).clamp(1, runs.max(1));
        let threads = match shared {
            true => (common.cores() / jobs).max(1),
            // Nothing is known of a node's cores.
            false => common.threads.map_or(1, usize::from),
        };
        let (program, device) = (this_program()?, common.device.clone());
        Ok(Some((launcher, Items { program, jobs, threads, device, checkpoint_every })))
    }
}

impl Launcher {
    pub fn compare(
        self,
        plan: &Plan,
        out: &Path,
        items: &Items,
        force: bool,
        screen: &mut Screen,
    ) -> Result<Finished> {
        match self {
            Self::Local => compare_local(plan, out, items, force, interrupt::flag(), screen),
            Self::Slurm => compare_slurm(plan, out, items, force, interrupt::flag(), screen),
        }
    }
}
