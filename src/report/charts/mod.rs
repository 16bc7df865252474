//! The charts. Each file draws one kind from records; [`ALL`] lists them in the order of the report.

mod cost;
mod differences;
mod headline;
mod key;
mod kl;
mod kto;
mod learning;
mod length;
mod overoptimisation;
mod pareto;
mod phases;
mod rewards;
mod scatter;
mod scores;
mod subsets;
mod sweep;
mod sweep_cost;
mod throughput;
mod tuning;

pub use differences::verdict_word;

use super::figures::Mark;
use super::input::Input;
use super::view::View;
use crate::base::error::Result;

/// One kind of chart.
pub struct Chart {
    pub name: &'static str,
    /// Draws it from the records: once, once a suite, or not at all where the data for it are absent.
    pub draw: fn(&View<'_>) -> Result<Vec<Drawing>>,
}

/// A finished drawing.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// File name without extension; unique in a report.
    pub name: String,
    pub title: String,
    /// What is shown, n, and what the intervals are.
    pub caption: String,
    pub section: Section,
    pub svg: String,
    /// Every hoverable mark with the rows that it stands for.
    pub marks: Vec<Mark>,
}

/// Where a drawing stands in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// Beside the verdicts.
    Head,
    Suite(String),
    Training,
    Cost,
}

/// All charts, in the order of the report.
pub const ALL: [Chart; 17] = [
    sweep::CHART,
    headline::CHART,
    scores::CHART,
    differences::CHART,
    subsets::CHART,
    rewards::CHART,
    length::CHART,
    learning::CHART,
    kl::CHART,
    kto::CHART,
    tuning::CHART,
    sweep_cost::CHART,
    overoptimisation::CHART,
    cost::CHART,
    phases::CHART,
    pareto::CHART,
    throughput::CHART,
];

/// Charts with a colour and a name an arm, which cannot be read with very many of them.
const OF_FEW_ARMS: [&str; 7] = ["subsets", "rewards", "length", "learning", "kl", "cost", "pareto"];
/// A sweep with more arms than this leaves those out: its own charts draw the arms as lines.
const FEW: usize = 8;

/// Every chart that the records have data for.
pub fn draw_all(input: &Input) -> Result<Vec<Drawing>> {
    let view = View::new(input);
    let many = view.trained().count() > FEW && super::sweep::plan(input).is_some_and(|p| p.swept());
    let mut drawings = Vec::new();
    for chart in ALL.iter().filter(|c| !many || !OF_FEW_ARMS.contains(&c.name)) {
        drawings.extend((chart.draw)(&view)?);
    }
    Ok(drawings)
}

/// A suite's name as part of a file name.
pub fn file_part(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    name.chars().map(kept).collect()
}
