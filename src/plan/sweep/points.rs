//! Arms from lists: one of each combination of values.

use toml::{Table, Value};

use super::lists::{Listed, check_values, defaults, lists, settle, text};
use super::{Axis, Point};
use crate::base::error::{HintExt, Result};
use crate::plan::source::{Source, arm_label, join};

/// An arm with single values only.
pub struct Expanded {
    /// The name under which its lines stand in the file.
    pub label: String,
    pub table: Table,
    pub point: Option<Point>,
}

/// Points that one arm may make: each is a run under every seed.
const MOST_POINTS: usize = 1000;

/// Keys of an arm that hold tables or lists of their own kind.
const OWN: [&str; 4] = ["point", "tune", "name", "trainer"];

/// Takes the lists out of `[train]`, `[data]` and `[budget]`, and gives the arms that all lists make.
///
/// # Errors
/// A list that is empty, holds a value twice or something that is no value; a key of the data that would change
/// the held-out questions; no arms.
pub fn expand(source: &mut Source) -> Result<Vec<Expanded>> {
    let mut shared = vec![];
    for section in ["data", "train", "budget"] {
        let defaults = defaults(section);
        let Some(table) = source.values.get(section).and_then(Value::as_table) else { continue };
        let mut found = vec![];
        lists(table, &defaults, "", &mut found);
        for (key, values) in found {
            let place = join(section, &key);
            check_values(source, &place, &values)?;
            let key = if section == "train" { key } else { place.clone() };
            shared.push(Listed { key, place, values });
        }
    }
    let arms = match source.values.get("arm") {
        Some(Value::Array(arms)) => arms.clone(),
        // What is wrong with it is said where arms are typed.
        _ => vec![],
    };
    for listed in &shared {
        settle(source, listed);
    }
    let mut expanded = vec![];
    for (i, arm) in arms.iter().enumerate() {
        let Value::Table(arm) = arm else {
            return Err(source.error("arm", format!("holds {arm}; an arm is a table [[arm]]")));
        };
        expanded.extend(expand_arm(source, arm, i, &shared)?);
    }
    Ok(expanded)
}

fn expand_arm(source: &Source, arm: &Table, index: usize, shared: &[Listed]) -> Result<Vec<Expanded>> {
    let label = arm_label(arm, index);
    if arm.contains_key("budget") && !arm.contains_key("point") {
        return Err(
            source.error(&format!("arm.{label}.budget"), "is given for one arm: every arm spends the same")
        )
        .hint("write `budget = { tokens = [50_000, 100_000] }` for the whole plan to sweep it");
    }
    let own: Table = arm.iter().filter(|(k, _)| !OWN.contains(&k.as_str())).map(clone).collect();
    let mut found = vec![];
    let known: Table = [("data".to_owned(), Value::Table(defaults("data")))].into_iter().collect();
    let known = known.into_iter().chain(defaults("train")).collect();
    lists(&own, &known, "", &mut found);
    let mut axes: Vec<Listed> = vec![];
    for listed in shared.iter().filter(|l| lookup(arm, &l.key).is_none()) {
        axes.push(Listed {
            values: listed.values.clone(),
            key: listed.key.clone(),
            place: listed.place.clone(),
        });
    }
    for (key, values) in found {
        let place = format!("arm.{label}.{key}");
        check_values(source, &place, &values)?;
        if let Some(data) = key.strip_prefix("data.") {
            check_values(source, &join("data", data), &values).map_err(|e| e.context(source.at(&place)))?;
        }
        axes.push(Listed { key, place, values });
    }
    if axes.is_empty() {
        return Ok(vec![Expanded { label, table: arm.clone(), point: None }]);
    }
    if arm.contains_key("point") {
        return Err(
            source.error(&format!("arm.{label}.point"), "stands beside a list: the arm is expanded already")
        );
    }
    let points = axes.iter().fold(1usize, |n, axis| n.saturating_mul(axis.values.len()));
    if points > MOST_POINTS {
        let lists: Vec<String> = axes.iter().map(|a| format!("{} ({})", a.key, a.values.len())).collect();
        return Err(source.error(
            &format!("arm.{label}"),
            format!("makes {points} points, of {}; at most {MOST_POINTS}", lists.join(" × ")),
        ))
        .hint("a sweep tries every combination; [tune] draws some of them");
    }
    Ok(combinations(&axes).into_iter().map(|values| at(arm, &label, &axes, &values)).collect())
}

fn clone((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// Every combination, the last axis fastest.
fn combinations(axes: &[Listed]) -> Vec<Vec<Value>> {
    let mut all = vec![vec![]];
    for axis in axes {
        let longer = |head: &Vec<Value>| {
            axis.values.iter().map(|v| head.iter().cloned().chain([v.clone()]).collect()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

fn at(arm: &Table, label: &str, axes: &[Listed], values: &[Value]) -> Expanded {
    let mut table = arm.clone();
    for (axis, value) in axes.iter().zip(values) {
        put(&mut table, &axis.key, value.clone());
    }
    let axes = axes.iter().zip(values).map(|(a, v)| Axis { key: a.key.clone(), value: text(v) }).collect();
    let point = Point { arm: label.to_owned(), axes };
    table.insert("name".to_owned(), Value::String(format!("{label}@{}", point.text())));
    Expanded { label: label.to_owned(), table, point: Some(point) }
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    let value = table.get(first)?;
    rest.map_or(Some(value), |rest| lookup(value.as_table()?, rest))
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Some(inner) = inner.as_table_mut() {
                put(inner, rest, value);
            }
        }
    }
}
