//! TOML becomes a [`Plan`] with every default explicit.

use serde::Deserialize;
use toml::{Table, Value};

use super::check::check;
use super::methods::{METHODS, method_names};
use super::overlay::{keys_of, overlay, section};
use super::overrides::Overrides;
use super::slurm::SlurmSpec;
use super::source::{Source, join};
use super::sweep::{Expanded, Point, asks_only, expand};
use super::types::*;
use crate::base::error::{HintExt, Result, anyhow};

const SECTIONS: [&str; 15] = [
    "name", "analysis", "seeds", "budget", "model", "data", "train", "suites", "judge", "verdict", "sweep",
    "tune", "prices", "slurm", "arm",
];

const CURRENCIES: [&str; 6] = ["tokens", "examples", "labels", "steps", "flops", "seconds"];

impl Plan {
    /// Parses a plan; `origin` is its path, for messages, and its stem the default name.
    ///
    /// # Errors
    /// With path and line (or the option), what is wrong, and what would be valid: TOML that does not parse,
    /// unknown keys, methods and arms, values of the wrong type or outside their range.
    pub fn parse(text: &str, origin: &str, overrides: &Overrides) -> Result<Self> {
        let mut source = Source::parse(text, origin)?;
        overrides.apply(&mut source)?;
        for key in source.values.keys() {
            if !SECTIONS.contains(&key.as_str()) {
                return Err(source.unknown(key, "key", key, &SECTIONS));
            }
        }
        let expanded = expand(&mut source)?;
        let data: DataSpec = section(&DataSpec::default(), &source, "data")?;
        let budget = budget(source.values.get("budget"), &source)?;
        let tune = source.values.contains_key("tune");
        let plan = Plan {
            name: string(&source, "name")?.unwrap_or_else(|| stem(origin).to_owned()),
            analysis: string(&source, "analysis")?.unwrap_or_default(),
            seeds: seeds(&source)?,
            budget,
            model: section(&ModelSpec::default(), &source, "model")?,
            suites: section(&SuitesSpec::default_for(&data), &source, "suites")?,
            judge: section(&JudgeSpec::default(), &source, "judge")?,
            verdict: section(&VerdictSpec::default(), &source, "verdict")?,
            slurm: section(&SlurmSpec::default(), &source, "slurm")?,
            sweep: section(&SweepSpec::default(), &source, "sweep")?,
            tune: tune.then(|| section(&TuneSpec::default(), &source, "tune")).transpose()?,
            prices: section(&PricesSpec::default(), &source, "prices")?,
            arms: arms(&source, &expanded, &data, budget)?,
            data,
        };
        check(&plan, &source)?;
        Ok(plan)
    }
}

fn stem(origin: &str) -> &str {
    let file = origin.rsplit(['/', '\\']).next().unwrap_or(origin);
    file.strip_suffix(".toml").unwrap_or(file)
}

fn string(source: &Source, key: &str) -> Result<Option<String>> {
    match source.values.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(source.error(key, format!("is {other}; it must be a string"))),
    }
}

fn seeds(source: &Source) -> Result<Vec<u64>> {
    let wrong = |v: &Value| source.error("seeds", format!("holds {v}; seeds are whole numbers, 0 or above"));
    let one = |v: &Value| v.as_integer().and_then(|i| u64::try_from(i).ok()).ok_or_else(|| wrong(v));
    match source.values.get("seeds") {
        Some(Value::Array(seeds)) => seeds.iter().map(one).collect(),
        Some(other) => Err(source.error("seeds", format!("is {other}; it must be a list such as [1, 2, 3]"))),
        None => Err(anyhow!("{}: no `seeds`", source.at(""))).hint("add `seeds = [1, 2, 3]`, or give --seed"),
    }
}

fn budget(given: Option<&Value>, source: &Source) -> Result<Budget> {
    let example = "such as `budget = { tokens = 200000 }`";
    let table = match given {
        Some(Value::Table(table)) => table,
        Some(other) => return Err(source.error("budget", format!("is {other}; it is a table {example}"))),
        None => {
            let hint = format!("add one {example} (currencies: {})", CURRENCIES.join(", "));
            return Err(anyhow!("{}: no `budget`", source.at(""))).hint(hint);
        }
    };
    for key in table.keys() {
        if !CURRENCIES.contains(&key.as_str()) {
            return Err(source.unknown(&format!("budget.{key}"), "budget currency", key, &CURRENCIES));
        }
    }
    let mut entries = table.iter();
    let (Some((currency, value)), None) = (entries.next(), entries.next()) else {
        let message =
            format!("names {} currencies; it takes exactly one of {}", table.len(), CURRENCIES.join(", "));
        return Err(source.error("budget", message));
    };
    let wrong =
        |must: &str| source.error(&format!("budget.{currency}"), format!("is {value}; it must be {must}"));
    let number = value.as_float().or(value.as_integer().map(|i| i as f64));
    let positive = number.filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| wrong("a number above 0"))?;
    if matches!(currency.as_str(), "flops" | "seconds") {
        return Ok(if currency == "flops" { Budget::Flops(positive) } else { Budget::Seconds(positive) });
    }
    // 2e5 is as good as 200000.
    let whole = if positive.fract() == 0.0 && positive <= 9e15 { positive as u64 } else { 0 };
    match (currency.as_str(), whole) {
        (_, 0) => Err(wrong("a whole number above 0")),
        ("tokens", n) => Ok(Budget::Tokens(n)),
        ("examples", n) => Ok(Budget::Examples(n)),
        ("labels", n) => Ok(Budget::Labels(n)),
        (_, n) => Ok(Budget::Steps(n)),
    }
}

fn arms(source: &Source, expanded: &[Expanded], data: &DataSpec, budget: Budget) -> Result<Vec<Arm>> {
    let train: TrainSpec = section(&TrainSpec::default(), source, "train")?;
    match source.values.get("arm") {
        Some(Value::Array(arms)) if !arms.is_empty() => {}
        Some(other) if !other.is_array() => {
            return Err(source.error("arm", "is one table; write [[arm]], once for each arm"));
        }
        _ => {
            return Err(anyhow!("{}: no arms", source.at(""))).hint(format!(
                "add [[arm]] with `method = \"kto\"` (methods: {})",
                method_names().join(", ")
            ));
        }
    };
    expanded.iter().map(|one| arm(source, &train, data, budget, one)).collect()
}

/// Keys of an arm that are neither its method's nor its training's.
const ARM_KEYS: [&str; 8] = ["name", "method", "trainer", "sft_first", "data", "budget", "point", "tune"];

fn arm(source: &Source, train: &TrainSpec, data: &DataSpec, whole: Budget, one: &Expanded) -> Result<Arm> {
    let Expanded { label, table, .. } = one;
    let path = format!("arm.{label}");
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => {
            Err(source.error(&format!("{path}.{key}"), format!("is {other}; it must be a string")))
        }
    };
    let names = method_names();
    let trainer = trainer(source, table, &path)?;
    let said = text("method")?;
    let method = match (said, &trainer) {
        (Some(method), _) => method,
        (None, Some(_)) => Method::External.name(),
        (None, None) => {
            return Err(anyhow!("{}: arm `{label}` has no `method`", source.at(&path)))
                .hint(format!("methods: {}", names.join(", ")));
        }
    };
    let keys = match METHODS.iter().find(|m| m.name == method) {
        Some(keys) => keys,
        None if trainer.is_some() && method == Method::External.name() => Method::External.keys(),
        None => return Err(source.unknown(&format!("{path}.method"), "method", method, &names)),
    };
    let train_keys = keys_of(train);
    let own = |key: &str| keys.keys.iter().any(|k| k.name == key);
    for key in table.keys() {
        let known = own(key) || train_keys.contains(key) || ARM_KEYS.contains(&key.as_str());
        if !known {
            let all = ARM_KEYS.into_iter().chain(keys.keys.iter().map(|k| k.name));
            let all: Vec<&str> = all.chain(train_keys.iter().map(String::as_str)).collect();
            let what = format!("key for method {method}");
            return Err(source.unknown(&format!("{path}.{key}"), &what, key, &all));
        }
    }
    let overrides: Table =
        table.iter().filter(|(k, _)| train_keys.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Arm {
        name: text("name")?.unwrap_or(method).to_owned(),
        method: keys.build(table, source, &path)?,
        train: overlay(train, &overrides, source, &path)?,
        trainer,
        sft_first: sft_first(source, table, &path)?,
        data: arm_data(source, data, table, &path)?,
        budget: table.get("budget").map_or(Ok(whole), |given| budget(Some(given), source))?,
        point: point(source, one, &path)?,
        tune: inner(source, table, "tune", &path)?,
    })
}

fn trainer(source: &Source, arm: &Table, path: &str) -> Result<Option<TrainerSpec>> {
    let path = format!("{path}.trainer");
    match arm.get("trainer") {
        None => Ok(None),
        Some(Value::Table(given)) => overlay(&TrainerSpec::default(), given, source, &path).map(Some),
        Some(other) => Err(source.error(&path, format!("is {other}; it must be a section [arm.trainer]"))),
    }
}

fn inner(source: &Source, table: &Table, key: &str, path: &str) -> Result<Table> {
    match table.get(key) {
        None => Ok(Table::new()),
        Some(Value::Table(inner)) => Ok(inner.clone()),
        Some(other) => {
            Err(source.error(&format!("{path}.{key}"), format!("is {other}; it must be a section")))
        }
    }
}

fn sft_first(source: &Source, table: &Table, path: &str) -> Result<f64> {
    let Some(value) = table.get("sft_first") else { return Ok(0.0) };
    let number = value.as_float().or(value.as_integer().map(|i| i as f64));
    number.ok_or_else(|| {
        source.error(&format!("{path}.sft_first"), format!("is {value}; it must be a share of the budget"))
    })
}

/// What the arm is trained on: the plan's data, and what the arm says otherwise.
fn arm_data(source: &Source, data: &DataSpec, table: &Table, path: &str) -> Result<DataSpec> {
    let given = inner(source, table, "data", path)?;
    let path = format!("{path}.data");
    for (section, value) in &given {
        let keys = value.as_table().into_iter().flat_map(Table::keys).map(|key| join(section, key));
        if let Some(key) = keys.chain([section.clone()]).find(|key| asks_only(key)) {
            let why = "belongs to the whole plan: all arms answer one set of held-out questions";
            return Err(source.error(&join(&path, &key), why)).hint("write it in [data]");
        }
    }
    overlay(data, &given, source, &path)
}

fn point(source: &Source, one: &Expanded, path: &str) -> Result<Option<Point>> {
    match (&one.point, one.table.get("point")) {
        (Some(point), _) => Ok(Some(point.clone())),
        (None, None) => Ok(None),
        (None, Some(value)) => Point::deserialize(value.clone())
            .map(Some)
            .map_err(|e| source.error(&format!("{path}.point"), e.message())),
    }
}

impl Arm {
    /// The arm as the plan wrote it: its name without the swept values.
    pub fn template(&self) -> &str {
        self.point.as_ref().map_or(&self.name, |p| &p.arm)
    }
}
