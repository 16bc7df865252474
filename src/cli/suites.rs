//! `kto-eval suites list|show|check`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

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
        files: Vec<PathBuf>,
    },
}

pub fn run(verb: &Verb, common: &Common) -> Result<Exit> {
    common.only("suites", &["--json"])?;
    match verb {
        Verb::List => list(common)?,
        Verb::Show { suite } if common.json => {
            let shown = suite::show(suite)?;
            let text = |(origin, text)| json!({"origin": origin, "text": text});
            print_json(&shown.into_iter().map(text).collect::<Vec<_>>())?;
        }
        Verb::Show { suite } => {
            for (origin, text) in suite::show(suite)? {
                print(&format!("# {origin}\n{text}"))?;
            }
        }
        Verb::Check { files } if files.is_empty() && !common.json => {
            print(&format!("{} shipped suites are sound\n", suite::shipped()?.len()))?;
        }
        Verb::Check { files } if files.is_empty() => list(common)?,
        Verb::Check { files } => {
            let suites: Vec<Suite> = files.iter().map(|file| Suite::read(file)).collect::<Result<_>>()?;
            let sound = |(file, suite): (&PathBuf, &Suite)| {
                format!("{}: suite `{}` is sound\n", file.display(), suite.name)
            };
            match common.json {
                true => print_json(&suites)?,
                false => print(&files.iter().zip(&suites).map(sound).collect::<String>())?,
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
