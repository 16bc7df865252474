//! `report --check`: computes every figure of a report again from its rows, and lists what differs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::input::Input;
use super::summary::mean;
use super::svg::png;
use super::view::BASE;
use super::write::{Rendered, render};
use crate::base::error::{Context, Result};
use crate::record::{ComparisonRow, ScoreRow, counted};
use crate::suite::estimate;

/// Sums in another order differ in the last digits; a figure that was changed does not come this close.
const TOLERANCE: f64 = 1e-9;
/// Differences listed a file; more are counted.
const LISTED: usize = 20;

/// Something in a report, or among its records, that does not follow from the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// File and place: `report.json: scores[3].mean`, `scores.csv:12: value`.
    pub place: String,
    pub found: String,
    /// What the rows give.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: says {}, the rows give {}", self.place, self.found, self.expected)
    }
}

/// Checks the report in `dir` against the records in `dir`; an empty list says that all figures follow.
///
/// # Errors
/// Where the records cannot be read.
pub fn check(dir: &Path) -> Result<Vec<Difference>> {
    check_input(&Input::read(dir)?, dir)
}

/// The same for records already read. Checked are, in this order: scores (value, n, standard error) against
/// example rows, comparisons against scores, the ledger of each run against its steps, samples against example
/// rows, every file of the report against what the records make now, and charts that are none of this report.
///
/// Intervals, p values and verdicts: [`check_comparisons`].
pub fn check_input(input: &Input, dir: &Path) -> Result<Vec<Difference>> {
    let mut found = scores(input);
    found.extend(comparisons(input));
    found.extend(super::check_rows::runs(input));
    found.extend(super::check_rows::samples(input));
    let rendered = render(input)?;
    found.extend(figures(&rendered, dir)?);
    for (name, text) in &rendered.files {
        found.extend(file(name, text, dir));
    }
    for path in super::write::strays(&rendered.drawings, dir) {
        let name = format!("charts/{}", path.file_name().unwrap_or_default().to_string_lossy());
        found.push(difference(name, "a chart of an earlier report", "none of this name"));
    }
    for drawing in &rendered.drawings {
        let name = format!("charts/{}.png", drawing.name);
        let shows = fs::read(dir.join(&name)).map(|png| png::shows(&png, &drawing.svg));
        match shows {
            Ok(Ok(true)) => {}
            Ok(shows) => {
                shows?;
                found.push(difference(name, "another drawing", "the drawing of its SVG"));
            }
            Err(error) => found.push(difference(name, format!("nothing ({error})"), "a drawing")),
        }
    }
    Ok(found)
}

pub(super) fn difference(
    place: impl Into<String>,
    found: impl ToString,
    expected: impl ToString,
) -> Difference {
    Difference { place: place.into(), found: found.to_string(), expected: expected.to_string() }
}

pub(super) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0) || (a.is_nan() && b.is_nan())
}

/// Values, n and standard errors of `scores.csv` against the rows of `examples.csv`. A metric without example rows (a ratio
/// of sums, such as perplexity) cannot be computed from them and is passed over.
fn scores(input: &Input) -> Vec<Difference> {
    /// Run, seed (the starting checkpoint has one name under all seeds), suite, metric, subset.
    type Key<'r> = (&'r str, u64, &'r str, &'r str, &'r str);
    let mut values: BTreeMap<Key<'_>, (Vec<f64>, Vec<&str>)> = BTreeMap::new();
    for e in &input.examples {
        let (run, suite, metric) = (e.run.as_str(), e.suite.as_str(), e.metric.as_str());
        let own = Some(e.subset.as_str()).filter(|s| *s != super::view::ALL);
        for subset in [Some(super::view::ALL), own].into_iter().flatten() {
            let (values, clusters) = values.entry((run, e.seed, suite, metric, subset)).or_default();
            values.push(e.value);
            // Without a cluster an example stands for itself.
            clusters.push(if e.cluster.is_empty() { &e.example } else { &e.cluster });
        }
    }
    let mut found = Vec::new();
    for (i, s) in input.scores.iter().enumerate() {
        let key = (s.run.as_str(), s.seed, s.suite.as_str(), s.metric.as_str(), s.subset.as_str());
        let Some((values, clusters)) = values.get(&key) else { continue };
        let place = |column: &str| {
            format!("scores.csv:{}: {column} of {} on {} in {}", i + 2, s.metric, s.suite, s.run)
        };
        if !close(mean(values), s.value) {
            found.push(difference(place("value"), s.value, mean(values)));
        }
        if values.len() as u64 != s.n {
            found.push(difference(place("n"), s.n, values.len()));
        }
        let error = estimate::mean(values, clusters).standard_error;
        if !close(error, s.standard_error) {
            found.push(difference(place("standard_error"), s.standard_error, error));
        }
    }
    found
}

/// Every column of `comparisons.csv` against the same comparisons judged again, `expected`.
pub fn check_comparisons(found: &[ComparisonRow], expected: &[ComparisonRow]) -> Vec<Difference> {
    if found.len() != expected.len() {
        return vec![difference(
            "comparisons.csv",
            format!("{} rows", found.len()),
            format!("{} rows", expected.len()),
        )];
    }
    let differing = found.iter().zip(expected).enumerate().filter_map(|(i, (a, b))| {
        let (column, a, b) = first_difference(a, b)?;
        Some(difference(format!("comparisons.csv:{}: {column}", i + 2), a, b))
    });
    differing.take(LISTED).collect()
}

/// The first column in which two rows differ, and what stands there.
fn first_difference(a: &ComparisonRow, b: &ComparisonRow) -> Option<(String, Value, Value)> {
    let columns = |row: &ComparisonRow| match serde_json::to_value(row) {
        Ok(Value::Object(columns)) => columns,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (columns(a), columns(b));
    // NaN is null in JSON.
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => close(a, b),
        _ => a == b,
    };
    let differing = b.into_iter().find(|(name, value)| !a.get(name).is_some_and(|a| same(a, value)));
    differing.map(|(name, value)| (name.clone(), a.get(&name).cloned().unwrap_or_default(), value))
}

/// Means and differences of `comparisons.csv` against `scores.csv`.
fn comparisons(input: &Input) -> Vec<Difference> {
    let mut found = Vec::new();
    for (i, c) in input.comparisons.iter().enumerate() {
        let place = |column: &str| format!("comparisons.csv:{}: {column}", i + 2);
        if !close(c.difference, c.mean_a - c.mean_b) {
            found.push(difference(place("difference"), c.difference, c.mean_a - c.mean_b));
        }
        if c.low > c.difference || c.difference > c.high {
            let interval = format!("{} to {}", c.low, c.high);
            found.push(difference(place("interval"), interval, format!("one around {}", c.difference)));
        }
        for (column, arm, recorded) in [("mean_a", &c.arm_a, c.mean_a), ("mean_b", &c.arm_b, c.mean_b)] {
            if let Some(mean) = arm_mean(input, c, arm).filter(|m| !close(*m, recorded)) {
                found.push(difference(place(column), recorded, mean));
            }
        }
    }
    found
}

/// Mean over the seeds that both arms have; `None` without scores, and where the comparison stands on other seeds or
/// examples (those that both arms answered).
fn arm_mean(input: &Input, c: &ComparisonRow, arm: &str) -> Option<f64> {
    let counted = counted(&input.runs);
    let of = |arm: &str| -> Vec<&ScoreRow> {
        let wanted = |s: &&ScoreRow| {
            s.arm == arm && s.suite == c.suite && s.subset == c.subset && s.metric == c.metric
        };
        let rows = input.scores.iter().filter(wanted);
        rows.filter(|s| s.value.is_finite() && counted(&s.run)).collect()
    };
    let other = if arm == c.arm_a { &c.arm_b } else { &c.arm_a };
    let (mut rows, others) = (of(arm), of(other));
    // The starting checkpoint may be scored once for all seeds, or have no rows at all (against itself it is even).
    let once = |name: &str, rows: &[&ScoreRow]| name == BASE && rows.len() < 2;
    if !once(other, &others) && !once(arm, &rows) {
        rows.retain(|s| others.iter().any(|o| o.seed == s.seed));
    }
    if rows.len() as u64 != c.seeds && !once(arm, &rows) {
        return None;
    }
    let all = rows.iter().map(|s| s.n).sum::<u64>();
    let same = rows.iter().all(|s| s.n == c.examples) || all == c.examples;
    let values: Vec<_> = rows.iter().map(|s| s.value).collect();
    (!values.is_empty() && same).then(|| mean(&values))
}

/// Every figure by its name: `report.json` leaf by leaf.
fn figures(rendered: &Rendered, dir: &Path) -> Result<Vec<Difference>> {
    let Ok(text) = fs::read_to_string(dir.join("report.json")) else { return Ok(Vec::new()) };
    let Ok(found) = serde_json::from_str::<Value>(&text) else {
        return Ok(vec![difference("report.json", "no JSON", "the figures as JSON")]);
    };
    // Through text, so that numbers are compared as they are written.
    let text = serde_json::to_string(&rendered.figures).context("figures as JSON")?;
    let expected: Value = serde_json::from_str(&text).context("figures as JSON")?;
    let mut differences = Vec::new();
    leaves("report.json: ", "", &found, &expected, &mut differences);
    Ok(differences)
}

fn leaves(file: &str, path: &str, found: &Value, expected: &Value, out: &mut Vec<Difference>) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in b {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(file, &path, &a[key], value, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                leaves(file, &format!("{path}[{i}]"), a, b, out);
            }
        }
        _ if found == expected => {}
        _ => out.push(difference(format!("{file}{path}"), brief(found), brief(expected))),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("{} entries", items.len()),
        Value::Object(fields) => format!("{} fields", fields.len()),
        other => other.to_string(),
    }
}

/// A text file of the report, line by line.
fn file(name: &str, expected: &str, dir: &Path) -> Vec<Difference> {
    let found = match fs::read_to_string(dir.join(name)) {
        Ok(found) => found,
        Err(error) => return vec![difference(name, format!("nothing ({error})"), "a file")],
    };
    if found == expected {
        return Vec::new();
    }
    let (a, b): (Vec<_>, Vec<_>) = (found.lines().collect(), expected.lines().collect());
    if a.len() != b.len() {
        return vec![difference(name, format!("{} lines", a.len()), format!("{} lines", b.len()))];
    }
    let differing = a.iter().zip(&b).enumerate().filter(|(_, (a, b))| a != b);
    let listed = differing.take(LISTED).map(|(i, (a, b))| {
        let (a, b) = around(a, b);
        difference(format!("{name}:{}", i + 1), format!("`{a}`"), format!("`{b}`"))
    });
    let listed: Vec<_> = listed.collect();
    if listed.is_empty() { vec![difference(name, "other line ends", "a line feed")] } else { listed }
}

/// The two lines from shortly before their first difference on, cut to a readable length.
fn around(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| text.chars().skip(same.saturating_sub(12)).take(60).collect();
    (cut(a), cut(b))
}
