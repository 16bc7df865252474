//! `kto-eval suites list|show|check`.

use clap::Subcommand;

use super::args::Common;
use super::output::{print, print_json, table};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::suite::{self, Kind, Suite};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the shipped suites
    List,
    /// Print a suite's file
    Show {
        /// Name of a shipped suite (generation/world where two share a name), or path of a file
        suite: String,
    },
    /// Parse suite files (all shipped ones where none is named)
    Check {
        /// Paths of suite files
        files: Vec<std::path::PathBuf>,
    },
}

pub fn run(verb: &Verb, common: &Common) -> Result<Exit> {
    match verb {
        Verb::List => list(common)?,
        Verb::Show { suite } => {
            for (origin, text) in suite::show(suite)? {
                print(&format!("# {origin}\n{text}"))?;
            }
        }
        Verb::Check { files } if files.is_empty() => {
            print(&format!("{} shipped suites are sound\n", suite::shipped()?.len()))?;
        }
        Verb::Check { files } => {
            for file in files {
                let suite = Suite::read(file)?;
                print(&format!("{}: suite `{}` is sound\n", file.display(), suite.name))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn list(common: &Common) -> Result<()> {
    let listed = suite::shipped()?;
    if common.json {
        let suites: Vec<&Suite> = listed.iter().map(|l| &l.suite).collect();
        return print_json(&suites);
    }
    let row = |s: &Suite| {
        let kind = match s.kind {
            Kind::Preference => "preference",
            Kind::Generation => "generation",
        };
        let metrics: Vec<&str> = s.metrics.iter().map(|m| m.name()).collect();
        vec![kind.to_owned(), s.name.clone(), s.source.clone(), metrics.join(" ")]
    };
    print(&table(&listed.iter().map(|l| row(&l.suite)).collect::<Vec<_>>()))
}
