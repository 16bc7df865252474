//! Reads judgments: AlpacaEval's `annotations.json`, or JSON lines.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Judgment;
use crate::base::error::{Context, HintExt, Result, anyhow, bail, ensure, unknown};

const FORMS: &str = "a JSON list of AlpacaEval annotations (preference 1 to 2, output_1, output_2, generator_1, \
                     generator_2), or JSON lines {id, candidate, baseline, preference 0 to 1, candidate_length, \
                     baseline_length}";

/// Judgments of a file's text. A text that begins with `[` is AlpacaEval's list, where preference 1 is a win
/// of `generator_1` (the baseline), 2 of `generator_2` (the candidate), 1.5 or 0 a tie, and null (the judge
/// gave no answer) is left out, as the official package does. Anything else is read as JSON lines, where null is
/// left out too: `judgments.jsonl` of a comparison is such a file. Its rows name their suite, and examples of two suites may
/// have one id: only those of `suite` are given.
///
/// # Errors
/// With the line (JSON lines) or the number of the annotation. A file of several suites where none is named.
pub fn parse(text: &str, suite: Option<&str>) -> Result<Parsed> {
    let text = text.trim_start_matches('\u{feff}');
    let rows = if text.trim_start().starts_with('[') { annotations(text)? } else { lines(text)? };
    let suites: BTreeSet<String> = rows.iter().map(|row| row.suite.clone()).collect();
    let known: Vec<&str> = suites.iter().map(String::as_str).collect();
    if let Some(name) = suite.filter(|name| !suites.contains(*name)) {
        return Err(unknown("suite", name, &known));
    }
    if suite.is_none() && known.len() > 1 {
        return Err(anyhow!("the file holds judgments of several suites: {}", known.join(", ")))
            .hint(format!("each has win rates of its own: --suite {}", known[known.len() - 1]));
    }
    let rows: Vec<Row> = rows.into_iter().filter(|row| suite.is_none_or(|name| row.suite == name)).collect();
    let all = rows.len();
    let judgments: Vec<Judgment> = rows.into_iter().filter_map(|row| row.judgment).collect();
    if judgments.is_empty() {
        let what = if all == 0 { "no judgments" } else { "no valid judgment" };
        return Err(anyhow!("{what} in the file")).hint(format!("it takes {FORMS}"));
    }
    Ok(Parsed { invalid: all - judgments.len(), judgments })
}

/// The judgments of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub judgments: Vec<Judgment>,
    /// Rows where the judge gave no valid answer.
    pub invalid: usize,
}

struct Row {
    /// Empty where the row names none.
    suite: String,
    /// `None`: the judge gave no valid answer.
    judgment: Option<Judgment>,
}

fn annotations(text: &str) -> Result<Vec<Row>> {
    let rows: Vec<Value> = serde_json::from_str(text).context("reading AlpacaEval annotations")?;
    let mut judgments = Vec::with_capacity(rows.len());
    for (k, row) in rows.iter().enumerate() {
        let read = annotation(row, k).with_context(|| format!("annotation {}", k + 1));
        let judgment = read.hint(format!("the file takes {FORMS}"))?;
        judgments.push(Row { suite: String::new(), judgment });
    }
    Ok(judgments)
}

fn annotation(row: &Value, k: usize) -> Result<Option<Judgment>> {
    let preference = match row.get("preference") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_f64().ok_or_else(|| anyhow!("`preference` is {value}, not a number"))?,
    };
    if preference.is_nan() {
        return Ok(None);
    }
    let preference = if preference == 0.0 { 1.5 } else { preference };
    ensure!((1.0..=2.0).contains(&preference), "`preference` is {preference}, outside 1 to 2 (0: a tie)");
    let length = |field: &str| Ok::<_, anyhow::Error>(text_of(row, field)?.chars().count() as f64);
    Ok(Some(Judgment {
        id: annotation_id(row, k),
        candidate: text_of(row, "generator_2")?.into(),
        baseline: text_of(row, "generator_1")?.into(),
        preference: preference - 1.0,
        candidate_length: Some(length("output_2")?),
        baseline_length: Some(length("output_1")?),
    }))
}

fn lines(text: &str) -> Result<Vec<Row>> {
    let filled = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(k, line): (usize, &str)| {
        let row: Result<Value> = serde_json::from_str(line).map_err(Into::into);
        let suite = |row: &Value| row.get("suite").and_then(Value::as_str).unwrap_or_default().to_owned();
        let read = row.and_then(|row| Ok(Row { suite: suite(&row), judgment: judgment(&row)? }));
        read.with_context(|| format!("line {}", k + 1)).hint(format!("the file takes {FORMS}"))
    };
    filled.map(read).collect()
}

/// `None`: the judge gave no valid answer (`preference` is null).
fn judgment(row: &Value) -> Result<Option<Judgment>> {
    if row.get("preference").is_some_and(Value::is_null) {
        return Ok(None);
    }
    let number = |field: &str| match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => v.as_f64().map(Some).ok_or_else(|| anyhow!("`{field}` is {v}, not a number")),
    };
    let length = |field: &str| match number(field)? {
        Some(n) if n < 0.0 => bail!("`{field}` is {n}; a length is 0 or more"),
        n => Ok(n),
    };
    let Some(preference) = number("preference")? else { bail!("`preference` is missing") };
    ensure!((0.0..=1.0).contains(&preference), "`preference` is {preference}, outside 0 to 1");
    Ok(Some(Judgment {
        id: row.get("id").map(name).ok_or_else(|| anyhow!("`id` is missing"))?,
        candidate: text_of(row, "candidate")?.into(),
        baseline: text_of(row, "baseline")?.into(),
        preference,
        candidate_length: length("candidate_length")?,
        baseline_length: length("baseline_length")?,
    }))
}

pub(super) fn text_of<'a>(row: &'a Value, field: &str) -> Result<&'a str> {
    row.get(field).and_then(Value::as_str).ok_or_else(|| anyhow!("`{field}` is missing or not a string"))
}

/// What the annotations of one prompt share: judgments of one instruction are resampled together, whoever wrote the
/// outputs. AlpacaEval's own lists have neither `index` nor `id`.
pub(super) fn annotation_id(row: &Value, k: usize) -> String {
    let found = ["index", "id", "instruction"].iter().find_map(|f| row.get(f).filter(|v| !v.is_null()));
    found.map_or_else(|| k.to_string(), name)
}

/// An id as text, without quotes.
pub(super) fn name(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
