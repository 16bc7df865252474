//! Lists in a plan. A key of an arm, of `[train]`, of `[data]` or of `[budget]` that holds a list where a single
//! value belongs makes one arm of each value; several lists make every combination.
//!
//! Expansion is pure: arms in the plan's order, the last list fastest. What an arm becomes depends on nothing
//! but that arm and the sections, so that another arm beside it moves no name, no seed and no run.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::source::{Source, arm_label, join};
use super::types::{Plan, TrainSpec};
use crate::base::error::{HintExt, Result, anyhow};

/// Where an arm stands in a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The arm as the plan wrote it, of which this is one value.
    pub arm: String,
    pub axes: Vec<Axis>,
}

/// A swept key and this arm's value of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Dotted: `data.feedback.fraction`, `beta`, `budget.tokens`.
    pub key: String,
    pub value: String,
}

impl Axis {
    /// The key's last part.
    pub fn short(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or(&self.key)
    }

    /// `None`: the values are words.
    pub fn number(&self) -> Option<f64> {
        self.value.parse().ok()
    }
}

impl Point {
    /// `fraction=0.1`, several joined by `@`: what stands after the arm's name.
    pub fn text(&self) -> String {
        let part = |a: &Axis| format!("{}={}", a.short(), a.value);
        self.axes.iter().map(part).collect::<Vec<_>>().join("@")
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.axes.iter().find(|a| a.key == key).map(|a| a.value.as_str())
    }

    /// Every axis of this point stands in the other one, with the same value.
    fn within(&self, other: &Point) -> bool {
        self.axes.iter().all(|a| other.value(&a.key) == Some(&a.value))
    }

    /// The two stand at the same values of what both sweep.
    pub fn meets(&self, other: &Point) -> bool {
        self.within(other) || other.within(self)
    }
}

impl Plan {
    /// Whether any key held a list.
    pub fn swept(&self) -> bool {
        self.arms.iter().any(|a| a.point.is_some())
    }

    /// Whether the sweep's claim speaks of `arm` held against `other`.
    pub fn claims(&self, arm: &str, other: &str) -> bool {
        let label = |name: &str| {
            let point = self.arms.iter().find(|a| a.name == name).and_then(|a| a.point.as_ref());
            point.map_or(name.to_owned(), |p| p.arm.clone())
        };
        let named = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|x| x == name || *x == label(name))
        };
        // Of several arms none is claimed to match itself.
        let labels: Vec<&str> =
            self.arms.iter().filter_map(|a| a.point.as_ref()).map(|p| p.arm.as_str()).collect();
        let alone = labels.iter().all(|l| *l == labels[0]);
        let own = self.sweep.arms.is_empty() && !alone && label(arm) == label(other);
        !own && named(&self.sweep.arms, arm) && named(&self.sweep.against, other)
    }

    /// Whether these two trained arms are compared.
    ///
    /// Without a sweep all are. In a sweep: different arms at the same values of what both sweep, an arm that is
    /// not swept with every other, and every arm with those named in `sweep.against`. The rest (one arm's own
    /// values among each other, unequal values) is not, so that no test is spent on what was not asked.
    pub fn compares(&self, a: &str, b: &str) -> bool {
        let against = |name: &str| self.sweep.against.iter().any(|x| x == name);
        let point =
            |name: &str| self.arms.iter().find(|arm| arm.name == name).and_then(|arm| arm.point.as_ref());
        match (point(a), point(b)) {
            _ if against(a) || against(b) => true,
            (Some(p), Some(q)) => p.arm != q.arm && p.meets(q),
            _ => true,
        }
    }
}

/// An arm with single values only.
pub(super) struct Expanded {
    /// The name under which its lines stand in the file.
    pub label: String,
    pub table: Table,
    pub point: Option<Point>,
}

/// A list: where it stands for messages, where its values go in an arm's table, and the values.
struct Listed {
    key: String,
    place: String,
    values: Vec<Value>,
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
pub(super) fn expand(source: &mut Source) -> Result<Vec<Expanded>> {
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

fn defaults(section: &str) -> Table {
    let table = match section {
        "train" => Table::try_from(TrainSpec::default()),
        "data" => Table::try_from(super::types::DataSpec::default()),
        _ => Ok(Table::new()),
    };
    table.expect("every section is a table")
}

/// Lists that stand where the default is no list, with their dotted keys.
fn lists(table: &Table, defaults: &Table, prefix: &str, found: &mut Vec<(String, Vec<Value>)>) {
    let empty = Table::new();
    for (key, value) in table {
        let default = defaults.get(key);
        match value {
            Value::Array(values) if !default.is_some_and(Value::is_array) => {
                found.push((join(prefix, key), values.clone()));
            }
            Value::Table(inner) => {
                let known = default.and_then(Value::as_table).unwrap_or(&empty);
                lists(inner, known, &join(prefix, key), found);
            }
            _ => {}
        }
    }
}

fn check_values(source: &Source, place: &str, values: &[Value]) -> Result<()> {
    if values.is_empty() {
        return Err(source.error(place, "is an empty list; a sweep takes at least one value"));
    }
    for (i, value) in values.iter().enumerate() {
        if matches!(value, Value::Array(_) | Value::Table(_) | Value::Datetime(_)) {
            return Err(source.error(place, format!("holds {value}; a sweep takes single values")));
        }
        if values[..i].iter().any(|other| text(other) == text(value)) {
            return Err(source.error(place, format!("holds {value} twice; a value makes one arm")));
        }
    }
    match place.strip_prefix("data.") {
        Some(key) if !trains_only(key) => Err(source.error(
            place,
            "is a list, and would change the held-out questions too, so that its arms could not be compared",
        ))
        .hint("write a plan for each; swept within one plan: data.feedback.*, data.max_examples, data.max_length"),
        _ => Ok(()),
    }
}

/// Keys of the data that the held-out split does not see.
pub(super) fn trains_only(key: &str) -> bool {
    key.starts_with("feedback.") || key == "max_examples" || key == "max_length"
}

/// What the section says once its list has gone to the arms: the largest budget and the largest length, which no
/// arm exceeds, and the default of everything else.
fn settle(source: &mut Source, listed: &Listed) {
    let largest = ["budget.", "data.max_length"].iter().any(|p| listed.place.starts_with(p));
    let number = |v: &Value| v.as_float().or(v.as_integer().map(|i| i as f64)).unwrap_or(0.0);
    let kept =
        listed.values.iter().max_by(|a, b| number(a).total_cmp(&number(b))).filter(|_| largest).cloned();
    let mut keys: Vec<&str> = listed.place.split('.').collect();
    let last = keys.pop().expect("a place has a key");
    let mut table = &mut source.values;
    for key in keys {
        let Some(inner) = table.get_mut(key).and_then(Value::as_table_mut) else { return };
        table = inner;
    }
    match kept {
        Some(value) => table.insert(last.to_owned(), value),
        None => table.remove(last),
    };
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

/// A value as names show it: `0.1`, `1`, `1e-5`, `auto`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Float(x) => {
            let text = format!("{x:?}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}

/// The arms that `[sweep]` names must be there.
pub(super) fn check_against(plan: &Plan, source: &Source) -> Result<()> {
    let labels = plan.arms.iter().filter_map(|a| a.point.as_ref()).map(|p| p.arm.as_str());
    let mut known: Vec<&str> = plan.arms.iter().map(|a| a.name.as_str()).chain(labels).collect();
    let mut seen = std::collections::BTreeSet::new();
    known.retain(|name| seen.insert(*name));
    for (key, names) in [("sweep.against", &plan.sweep.against), ("sweep.arms", &plan.sweep.arms)] {
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(source.unknown(key, "arm", name, &known));
        }
    }
    if plan.sweep != super::types::SweepSpec::default() && !plan.swept() {
        return Err(anyhow!("{}: no key of the plan holds a list", source.at("sweep")))
            .hint("give a list, such as `beta = [0.05, 0.1]`, or leave [sweep] out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, Overrides, Plan};
    use crate::base::error::render;

    const SWEPT: &str = r#"
seeds = [1, 2]
budget = { tokens = 1000 }
[model]
source = "world"
[data]
source = "world"
[data.feedback]
fraction = [0.1, 1.0]
[[arm]]
method = "kto"
beta = [0.05, 0.1]
[[arm]]
method = "dpo"
"#;

    fn parse(text: &str) -> Plan {
        Plan::parse(text, "p.toml", &Overrides::default()).unwrap_or_else(|e| panic!("{}", render(&e)))
    }

    fn refusal(text: &str) -> String {
        Plan::parse(text, "p.toml", &Overrides::default())
            .map_or_else(|e| render(&e), |_| panic!("accepted: {text}"))
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.arms.iter().map(|a| a.name.as_str()).collect()
    }

    #[test]
    fn lists_make_every_combination_and_each_arm_has_its_values() {
        let plan = parse(SWEPT);
        assert_eq!(
            names(&plan),
            [
                "kto@fraction=0.1@beta=0.05",
                "kto@fraction=0.1@beta=0.1",
                "kto@fraction=1@beta=0.05",
                "kto@fraction=1@beta=0.1",
                "dpo@fraction=0.1",
                "dpo@fraction=1"
            ]
        );
        assert_eq!(plan.runs().len(), 12);
        let fractions: Vec<f64> = plan.arms.iter().map(|a| a.data.feedback.fraction).collect();
        assert_eq!(fractions, [0.1, 0.1, 1.0, 1.0, 0.1, 1.0]);
        assert_eq!(plan.data.feedback.fraction, 1.0, "the held-out split belongs to no point");
        assert_eq!((plan.arms[1].template(), plan.arms[5].template()), ("kto", "dpo"));
        let ids: std::collections::BTreeSet<String> = plan.runs().into_iter().map(|r| r.id).collect();
        assert_eq!(ids.len(), 12);
    }

    #[test]
    fn an_arm_beside_it_moves_no_run() {
        let ids = |text: &str| parse(text).runs().into_iter().map(|r| r.id).collect::<Vec<_>>();
        let alone = ids(&SWEPT.replace("[[arm]]\nmethod = \"dpo\"\n", ""));
        let all = ids(SWEPT);
        assert_eq!(alone.len(), 8);
        assert!(alone.iter().all(|id| all.contains(id)));
        assert_eq!(all, ids(SWEPT), "expansion is pure");
    }

    #[test]
    fn a_swept_plan_written_out_parses_to_itself() {
        let more = [
            SWEPT.to_owned(),
            SWEPT.replace("tokens = 1000", "tokens = [500, 1000]"),
            SWEPT.replace("beta = [0.05, 0.1]", "sft_first = [0.0, 0.25]\nlearning_rate = [1e-5, 1e-4]"),
            SWEPT.replace("[[arm]]\nmethod = \"dpo\"", "[sweep]\nclaim = \"x\"\nagainst = [\"dpo\"]\n[prices]\ndevice_hour = 2\n[[arm]]\nmethod = \"dpo\"\ndata.feedback.fraction = 0.5"),
            SWEPT.replace("fraction = [0.1, 1.0]", "").replace("beta = [0.05, 0.1]", "tune = { beta = { from = 0.1, to = 1.0 } }").replace("\"dpo\"", "\"dpo\"\ntune.beta = [0.1, 0.2]\n[tune]\ntrials = 3"),
        ];
        for text in more {
            let plan = parse(&text);
            let written = plan.to_toml();
            assert_eq!(parse(&written), plan, "{written}");
        }
    }

    #[test]
    fn sections_and_budgets_may_hold_lists_too_and_an_arm_own_value_stands() {
        let plan = parse(
            &SWEPT.replace("tokens = 1000", "tokens = [500, 1000]").replace("fraction = [0.1, 1.0]", ""),
        );
        assert_eq!(plan.budget, Budget::Tokens(1000), "what no arm exceeds");
        assert_eq!(plan.arms.iter().map(|a| a.budget.amount()).sum::<f64>(), 4500.0);
        let text = SWEPT.replace("fraction = [0.1, 1.0]", "").replace(
            "[[arm]]\nmethod = \"dpo\"",
            "[train]\nlearning_rate = [1e-4, 1e-3]\n[[arm]]\nmethod = \"dpo\"\nlearning_rate = 0.5",
        );
        assert_eq!(names(&parse(&text)).last(), Some(&"dpo"));
        assert_eq!(parse(&text).arms.len(), 5);
    }

    #[test]
    fn arms_are_compared_at_equal_values_and_with_what_the_plan_names() {
        let plan = parse(&SWEPT.replace("beta = [0.05, 0.1]", ""));
        let compares = |a: &str, b: &str| {
            assert_eq!(plan.compares(a, b), plan.compares(b, a));
            plan.compares(a, b)
        };
        assert!(compares("kto@fraction=0.1", "dpo@fraction=0.1"));
        assert!(!compares("kto@fraction=0.1", "dpo@fraction=1"));
        assert!(!compares("kto@fraction=0.1", "kto@fraction=1"));
        let named = SWEPT
            .replace("beta = [0.05, 0.1]", "")
            .replace("seeds", "sweep.against = [\"dpo@fraction=1\"]\nseeds");
        let plan = parse(&named);
        assert!(plan.compares("kto@fraction=0.1", "dpo@fraction=1"));
        assert!(plan.compares("dpo@fraction=0.1", "dpo@fraction=1"));
        let shared = parse(SWEPT);
        assert!(shared.compares("kto@fraction=0.1@beta=0.05", "dpo@fraction=0.1"));
        assert!(!shared.compares("kto@fraction=0.1@beta=0.05", "dpo@fraction=1"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_line() {
        for (from, to, says) in [
            ("fraction = [0.1, 1.0]", "fraction = []", &["p.toml:9", "empty list"][..]),
            ("fraction = [0.1, 1.0]", "fraction = [0.1, 0.10]", &["p.toml:9", "twice"]),
            ("fraction = [0.1, 1.0]", "fraction = [0.1, 1.5]", &["p.toml:9", "is 1.5", "at most 1"]),
            ("fraction = [0.1, 1.0]", "fraction = [[0.1]]", &["p.toml:9", "single values"]),
            (
                "fraction = [0.1, 1.0]",
                "imbalance = [1.0, 3.0]",
                &["p.toml:9", "`dpo@imbalance=1` (dpo) learns from pairs"],
            ),
            (
                "fraction = [0.1, 1.0]",
                "one_completion = true",
                &["p.toml:9", "`dpo` (dpo) learns from pairs", "hint"],
            ),
            ("fraction = [0.1, 1.0]", "flip = [0.1, 0.6]", &["p.toml:9", "0.6", "below one half"]),
            (
                "[data.feedback]\nfraction = [0.1, 1.0]",
                "[data.world]\nflip = [0.1, 0.2]",
                &["p.toml:9", "held-out questions"],
            ),
            ("beta = [0.05, 0.1]", "data.source = \"x\"", &["p.toml:12", "belongs to the whole plan"]),
            ("beta = [0.05, 0.1]", "budget = { tokens = 7 }", &["p.toml:12", "every arm spends the same"]),
            (
                "beta = [0.05, 0.1]",
                "beta = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]\nlearning_rate = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]\nwarmup = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]",
                &["p.toml:1", "1200 points", "fraction (2) × beta (10) × ", "hint: a sweep tries every"],
            ),
            ("beta = [0.05, 0.1]", "sft_first = 1.0", &["p.toml:12", "below 1"]),
            ("\"dpo\"", "\"sft\"\nsft_first = 0.5", &["p.toml:15", "SFT before SFT"]),
            (
                "seeds",
                "sweep.arms = [\"dop\"]\nseeds",
                &["unknown arm `dop` (known: kto@fraction=0.1@beta=0.05", "dpo@fraction=1, kto, dpo"],
            ),
            ("\"dpo\"", "\"dpo\"\ntune.beta = [1.0]", &["p.toml:15", "no [tune]"]),
            ("\"dpo\"", "\"dpo\"\n[tune]\ntrials = 2", &["has no `tune`"]),
        ] {
            assert!(SWEPT.contains(from), "the test replaces {from}");
            let text = refusal(&SWEPT.replacen(from, to, 1));
            for part in says {
                assert!(text.contains(part), "{to}\n  says: {text}\n  lacks: {part}");
            }
        }
    }
}
