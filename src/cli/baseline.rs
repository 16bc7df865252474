//! `kto-eval baseline save|show|list`.

use std::path::PathBuf;

use clap::Subcommand;

use super::args::Common;
use super::output::{print, print_json, table};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::gate::baseline::{self, Manifest};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Keep the part of a record folder that a gate needs
    Save {
        /// Folder that `compare` or `gate measure` wrote
        dir: PathBuf,
        /// Its name [default: the plan's]
        #[arg(long)]
        name: Option<String>,
        /// Folder of the baselines
        #[arg(long, value_name = "DIR", default_value = baseline::FOLDER)]
        to: PathBuf,
        /// Replace a baseline of that name
        #[arg(long)]
        force: bool,
    },
    /// Show a baseline, and check its files
    Show {
        /// Its folder, or its name below baselines/
        dir: PathBuf,
    },
    /// List the baselines of a folder
    List {
        #[arg(default_value = baseline::FOLDER)]
        folder: PathBuf,
    },
}

pub fn run(verb: &Verb, common: &Common) -> Result<Exit> {
    common.only("baseline", &["--json"])?;
    match verb {
        Verb::Save { dir, name, to, force } => {
            let name = match name {
                Some(name) => name.clone(),
                None => crate::record::Records::read(dir)?.plan.name,
            };
            let manifest = baseline::save(dir, to, &name, *force)?;
            let size: u64 = manifest
                .files
                .keys()
                .filter_map(|f| to.join(&name).join(f).metadata().ok())
                .map(|m| m.len())
                .sum();
            match common.json {
                true => print_json(&manifest)?,
                false => {
                    print(&format!("saved {} ({} KiB)\n", to.join(&name).display(), size.div_ceil(1024)))?
                }
            }
        }
        Verb::Show { dir } => {
            let dir = baseline::locate(dir);
            let manifest = baseline::read(&dir)?;
            baseline::verify(&dir)?;
            match common.json {
                true => print_json(&manifest)?,
                false => print(&table(&facts(&manifest)))?,
            }
        }
        Verb::List { folder } => {
            let found = baseline::list(folder)?;
            if common.json {
                print_json(&found.iter().map(|(_, m)| m).collect::<Vec<_>>())?;
            } else {
                let row = |(dir, m): &(PathBuf, Manifest)| {
                    vec![
                        m.name.clone(),
                        m.plan.clone(),
                        m.arms.join(" "),
                        m.environment.started.clone(),
                        dir.display().to_string(),
                    ]
                };
                print(&table(&found.iter().map(row).collect::<Vec<_>>()))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn facts(m: &Manifest) -> Vec<Vec<String>> {
    let e = &m.environment;
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let seeds: Vec<String> = m.seeds.iter().map(u64::to_string).collect();
    [
        ("name", m.name.clone()),
        ("plan", m.plan.clone()),
        ("arms", m.arms.join(" ")),
        ("seeds", seeds.join(" ")),
        ("made", e.started.clone()),
        ("by", format!("kto-eval {} {}", e.version, e.commit)),
        ("device", format!("{}, {}, {} threads", e.device, e.cpu, e.threads)),
        ("data", short(&e.data_hash)),
        ("model", short(&e.model_hash)),
        ("reference", short(&e.reference_hash)),
        ("files", m.files.keys().cloned().collect::<Vec<_>>().join(" ")),
    ]
    .map(|(key, value)| vec![key.to_owned(), value])
    .to_vec()
}
