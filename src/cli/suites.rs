//! `kto-eval suites list|show|check`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::args::Common;
use super::output::{print, print_json, table};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::suite::{self, Direction, Kind, MetricInfo, Suite};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the shipped suites
    List,
    /// Print a suite's file, and what each of its metrics means
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
            let shown = shown.iter().map(|(origin, text)| {
                let metrics: Vec<_> = metrics(text, origin)?.into_iter().map(as_json).collect();
                Ok(json!({"origin": origin, "text": text, "metrics": metrics}))
            });
            print_json(&shown.collect::<Result<Vec<_>>>()?)?;
        }
        Verb::Show { suite } => {
            for (origin, text) in suite::show(suite)? {
                print(&format!("# {origin}\n{text}"))?;
                for m in metrics(&text, &origin)? {
                    print(&format!("# {} ({}, {}): {}\n", m.name, m.unit, better(m), m.meaning))?;
                }
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

fn metrics(text: &str, origin: &str) -> Result<Vec<&'static MetricInfo>> {
    Ok(Suite::parse(text, origin)?.metrics.iter().map(|m| m.info()).collect())
}

fn better(metric: &MetricInfo) -> &'static str {
    match metric.direction {
        Direction::Higher => "higher is better",
        Direction::Lower => "lower is better",
        Direction::Neutral => "neither way is better",
    }
}

fn as_json(metric: &MetricInfo) -> serde_json::Value {
    let MetricInfo { name, unit, meaning, .. } = metric;
    json!({"name": name, "unit": unit, "better": better(metric), "meaning": meaning})
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
            Kind::Labels => "labels",
            Kind::Generation => "generation",
        };
        let metrics: Vec<&str> = s.metrics.iter().map(|m| m.name()).collect();
        vec![kind.to_owned(), s.name.clone(), s.source.clone(), metrics.join(" ")]
    };
    print(&table(&listed.iter().map(|l| row(&l.suite)).collect::<Vec<_>>()))
}
