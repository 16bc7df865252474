//! Suites whose rows have a form of their own: templates over the columns make pairs and prompts of them.

use std::ops::ControlFlow;

use minijinja::Environment;
use rand::seq::index;
use serde_json::{Map, Value, json};

use super::definition::{PairTemplates, Suite};
use super::judge::Task;
use super::lots::Lots;
use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::data::{PreferencePair, TEMPLATE_FUEL, Template, locate, names, read_rows};
use crate::plan::DataSpec;

/// A row and where it stands.
struct Row {
    /// `<file name>:<number>`.
    id: String,
    /// `path:line`.
    place: String,
    columns: Map<String, Value>,
}

/// At most `most` rows of a split (0: all), drawn by their ids, with their places in it.
fn read(
    spec: &DataSpec,
    split: &str,
    most: usize,
    id_of: &dyn Fn(&Row) -> Result<String>,
) -> Result<Vec<(usize, Row)>> {
    let (files, _) = locate(spec, split)?;
    let mut lots = Lots::new(most);
    for (file, name) in files.iter().zip(names(&files)) {
        read_rows(file, &mut |at, row| {
            let place = format!("{}:{}", file.display(), at.line);
            let Value::Object(columns) = row else { bail!("{place}: a row must be an object") };
            let row = Row { id: format!("{name}:{}", at.number), place, columns };
            lots.offer(&id_of(&row)?, row);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let rows = lots.drawn();
    if rows.is_empty() {
        bail!("{}: the split `{split}` is empty", spec.source);
    }
    Ok(rows)
}

/// At most `most` pairs (0: all) made by the suite's templates.
///
/// # Errors
/// Where the source is missing, a row that is drawn lacks a column, or a template does not parse.
pub fn pairs(
    spec: &DataSpec,
    split: &str,
    templates: &PairTemplates,
    most: usize,
) -> Result<Vec<PreferencePair>> {
    let environment = environment();
    let pair = |row: Row| {
        let fill = |template: &str| render(&environment, template, &row);
        Ok(PreferencePair {
            prompt: fill(&templates.prompt)?,
            chosen: fill(&templates.chosen)?,
            rejected: fill(&templates.rejected)?,
            subset: fill(&templates.subset)?,
            id: row.id,
        })
    };
    read(spec, split, most, &|row| Ok(row.id.clone()))?.into_iter().map(|(_, row)| pair(row)).collect()
}

/// At most `most` of the suite's prompts (0: all), with few-shot examples before them and in the chat template where it says so.
///
/// # Errors
/// As [`pairs`]; a training split that is smaller than the number of few-shot examples.
pub fn tasks(spec: &DataSpec, suite: &Suite, chat: &Template, most: usize) -> Result<Vec<Task>> {
    let environment = environment();
    let shots = match &suite.few_shot {
        Some(few) => {
            solved_apart(spec, &few.split, &suite.split)?;
            read(spec, &few.split, 0, &|row| Ok(row.id.clone()))?.into_iter().map(|(_, row)| row).collect()
        }
        None => Vec::new(),
    };
    let id_of = |row: &Row| match suite.columns.id.as_str() {
        "" => Ok(row.id.clone()),
        name => column(row, name),
    };
    let mut tasks = Vec::new();
    for (i, row) in read(spec, &suite.split, most, &id_of)? {
        let asked = if suite.template.is_empty() {
            column(&row, &suite.columns.prompt)?
        } else {
            render(&environment, &suite.template, &row)?
        };
        let whole = solved(suite, &shots, i, &environment)? + &asked;
        let prompt =
            if suite.chat { chat.render(&[json!({"role": "user", "content": whole})], true)? } else { whole };
        let optional = |name: &str| if name.is_empty() { Ok(None) } else { column(&row, name).map(Some) };
        tasks.push(Task {
            cluster: cluster(&prompt),
            subset: optional(&suite.columns.subset)?.unwrap_or_default(),
            answer: optional(&suite.columns.answer)?,
            id: id_of(&row)?,
            prompt,
            asked,
            row: row.columns,
        });
    }
    Ok(tasks)
}

/// # Errors
/// The solved examples are the questions themselves, answers and all.
fn solved_apart(spec: &DataSpec, solved: &str, asked: &str) -> Result<()> {
    let (solved_files, asked_files) = (locate(spec, solved)?.0, locate(spec, asked)?.0);
    match solved_files.iter().find(|file| asked_files.contains(file)) {
        None => Ok(()),
        Some(file) => Err(anyhow!(
            "few_shot: `{solved}` and `{asked}` are the same rows, {}: questions would be asked after their own answers",
            file.display()
        ))
        .hint("make `source` a directory with a file for each of the two splits"),
    }
}

/// Whether a template can be used.
///
/// # Errors
/// What does not parse, with its line.
pub fn check_template(template: &str) -> Result<()> {
    environment().template_from_str(template).map(drop).with_context(|| format!("template `{template}`"))
}

/// Prompts that are the same share a cluster.
pub fn cluster(prompt: &str) -> String {
    Hasher::new("cluster").part(prompt.as_bytes()).short()
}

/// The solved examples before question `i`, drawn without replacement by a seed of the suite's own, the same
/// for every model.
fn solved(suite: &Suite, shots: &[Row], i: usize, environment: &Environment) -> Result<String> {
    let Some(few) = &suite.few_shot else { return Ok(String::new()) };
    if shots.len() < few.count {
        bail!("few_shot asks for {} examples and the split `{}` has {}", few.count, few.split, shots.len());
    }
    let mut rng = seed::rng_at(suite.decoding.seed, "suite/few-shot", i as u64);
    let mut text = String::new();
    for shot in index::sample(&mut rng, shots.len(), few.count) {
        text += &render(environment, &few.template, &shots[shot])?;
        text += &few.separator;
    }
    Ok(text)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // A column that is missing is an error, not an empty prompt.
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment
}

/// The columns as a template sees them.
fn columns(row: &Map<String, Value>) -> minijinja::Value {
    minijinja::Value::from_pairs(row.iter().map(|(name, value)| (name.clone(), template_value(value))))
}

fn template_value(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(b) => minijinja::Value::from(*b),
        Value::Number(n) => match n.as_i64() {
            Some(i) => minijinja::Value::from(i),
            None => minijinja::Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => minijinja::Value::from(text.as_str()),
        Value::Array(items) => items.iter().map(template_value).collect(),
        Value::Object(row) => columns(row),
    }
}

fn render(environment: &Environment, template: &str, row: &Row) -> Result<String> {
    let rendered = environment.render_str(template, columns(&row.columns));
    rendered.with_context(|| {
        let columns: Vec<&str> = row.columns.keys().map(String::as_str).collect();
        format!("{}: template `{template}` over the columns `{}`", row.place, columns.join("`, `"))
    })
}

fn column(row: &Row, name: &str) -> Result<String> {
    match row.columns.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        _ => {
            let columns: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            Err(anyhow!("{}: no text in column `{name}` (the row has `{}`)", row.place, columns.join("`, `")))
        }
    }
}
