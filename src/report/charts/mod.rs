//! The charts. Each file draws one kind from records; [`ALL`] lists them in the order of the report.

mod cost;
mod differences;
mod headline;
mod key;
mod kl;
mod learning;
mod length;
mod pareto;
mod rewards;
mod scatter;
mod scores;
mod subsets;
mod throughput;

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
pub const ALL: [Chart; 11] = [
    headline::CHART,
    scores::CHART,
    differences::CHART,
    subsets::CHART,
    rewards::CHART,
    length::CHART,
    learning::CHART,
    kl::CHART,
    cost::CHART,
    pareto::CHART,
    throughput::CHART,
];

/// Every chart that the records have data for.
pub fn draw_all(input: &Input) -> Result<Vec<Drawing>> {
    let view = View::new(input);
    let mut drawings = Vec::new();
    for chart in &ALL {
        drawings.extend((chart.draw)(&view)?);
    }
    Ok(drawings)
}

/// A suite's name as part of a file name.
pub fn file_part(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    name.chars().map(kept).collect()
}
