//! `[slurm]`: what a job array asks for. Results do not depend on it, so that it is no part of a plan's hash.

use serde::{Deserialize, Serialize};

use super::source::Source;
use crate::base::error::Result;

/// Lines of the job script; empty: the line is left out, and the cluster's default holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlurmSpec {
    pub partition: String,
    pub account: String,
    pub qos: String,
    /// As `--gpus` takes it (`1`, `a100:1`).
    pub gpus: String,
    /// CPUs, and so threads, of an item; 0: the cluster's default.
    pub cpus: usize,
    /// As `--mem` takes it (`16G`).
    pub memory: String,
    /// As `--time` takes it (`4:00:00`).
    pub time: String,
    pub constraint: String,
    /// What the program is run under (`apptainer exec image.sif`, `srun --container-image=…`).
    pub container: String,
    /// Shell lines before it (`module load cuda`, `export HF_HOME=…`).
    pub environment: Vec<String>,
    /// Further `#SBATCH` options (`--exclude=node7`).
    pub options: Vec<String>,
}

impl Default for SlurmSpec {
    fn default() -> Self {
        let empty = String::new;
        Self {
            partition: empty(),
            account: empty(),
            qos: empty(),
            gpus: empty(),
            cpus: 0,
            memory: empty(),
            time: empty(),
            constraint: empty(),
            container: empty(),
            environment: vec![],
            options: vec![],
        }
    }
}

/// A value that holds a line end would begin a line of its own in the script.
pub(super) fn check(slurm: &SlurmSpec, source: &Source) -> Result<()> {
    let own = [
        ("partition", &slurm.partition),
        ("account", &slurm.account),
        ("qos", &slurm.qos),
        ("gpus", &slurm.gpus),
        ("memory", &slurm.memory),
        ("time", &slurm.time),
        ("constraint", &slurm.constraint),
        ("container", &slurm.container),
    ];
    let options = slurm.options.iter().map(|option| ("options", option));
    for (key, value) in own.into_iter().chain(options) {
        if value.chars().any(char::is_control) {
            return Err(
                source.error(&format!("slurm.{key}"), "holds a line end or another control character")
            );
        }
    }
    if let Some(option) = slurm.options.iter().find(|o| !o.starts_with('-')) {
        return Err(
            source.error("slurm.options", format!("holds `{option}`; options of sbatch begin with -"))
        );
    }
    Ok(())
}
