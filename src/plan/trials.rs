//! What tuning tries: the arm as it stands, then draws or a grid. Pure: an arm's trials depend on `[tune]` and on
//! that arm's name and keys alone.

use rand::RngExt;
use serde::Deserialize;
use toml::{Table, Value};

use super::source::Source;
use super::sweep::text;
use super::types::*;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::seed;

/// One configuration of an arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// 0: the arm as the plan has it, which is no draw.
    pub index: usize,
    /// The searched keys with their values, in order of key.
    pub values: Vec<(String, Value)>,
}

impl Trial {
    /// `beta=0.05 learning_rate=1e-4`.
    pub fn text(&self) -> String {
        let part = |(key, value): &(String, Value)| format!("{key}={}", text(value));
        self.values.iter().map(part).collect::<Vec<_>>().join(" ")
    }
}

/// What a searched key may be.
enum Space<'a> {
    Values(&'a [Value]),
    /// Uniform in x, or in log x; of whole numbers where the key takes no others.
    Range {
        from: f64,
        to: f64,
        log: bool,
        whole: bool,
    },
}

impl Arm {
    /// The arm with other values of some keys of its method or of its training.
    ///
    /// # Errors
    /// A key that it does not have, a value that the key does not take.
    pub fn with(&self, values: &[(String, Value)]) -> Result<Arm> {
        let (mut method, mut train) = self.tables();
        for (key, value) in values {
            if let Some(slot) = method.get_mut(key).or(train.get_mut(key)) {
                *slot = value.clone();
            } else {
                let known: Vec<&str> = method.keys().chain(train.keys()).map(String::as_str).collect();
                return Err(crate::base::error::unknown("key to tune", key, &known));
            }
        }
        let nowhere = Source::parse("", &self.name)?;
        let method = self.method.keys().build(&method, &nowhere, &format!("arm.{}", self.name))?;
        let train =
            TrainSpec::deserialize(train).map_err(|e| anyhow!("arm {}: {}", self.name, e.message()))?;
        Ok(Arm { method, train, ..self.clone() })
    }

    /// What the arm has of its method's keys, and of those of its training.
    fn tables(&self) -> (Table, Table) {
        let method = self.method.values().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        (method, Table::try_from(&self.train).expect("a section is a table"))
    }

    /// The arm's trials: its own configuration, then `spec.trials` others.
    ///
    /// # Errors
    /// A range that is none, or a list without values.
    pub fn trials(&self, spec: &TuneSpec) -> Result<Vec<Trial>> {
        let (method, train) = self.tables();
        let whole = |key: &String| method.get(key).or(train.get(key)).is_some_and(Value::is_integer);
        let spaces: Vec<(&String, Space<'_>)> =
            self.tune.iter().map(|(k, v)| Ok((k, space(k, v, whole(k))?))).collect::<Result<_>>()?;
        let own = Trial { index: 0, values: vec![] };
        let tried = match spec.search {
            Search::Grid => grid(&spaces)?,
            Search::Random => (1..=spec.trials).map(|i| self.draw(spec, &spaces, i)).collect(),
        };
        Ok(std::iter::once(own).chain(tried).collect())
    }

    fn draw(&self, spec: &TuneSpec, spaces: &[(&String, Space<'_>)], index: usize) -> Trial {
        let value = |(key, space): &(&String, Space<'_>)| {
            let mut rng = seed::rng_at(spec.seed, &format!("tune/{}/{key}", self.name), index as u64);
            let value = match space {
                Space::Values(values) => values[rng.random_range(0..values.len())].clone(),
                Space::Range { from, to, log, whole } => {
                    let u: f64 = rng.random();
                    let x = if *log { from * (to / from).powf(u) } else { from + u * (to - from) };
                    match whole {
                        true => Value::Integer(x.round() as i64),
                        false => Value::Float(three_digits(x).clamp(*from, *to)),
                    }
                }
            };
            ((*key).clone(), value)
        };
        Trial { index, values: spaces.iter().map(value).collect() }
    }
}

/// Three significant digits: what stands in the table is what was run.
fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

fn space<'v>(key: &str, value: &'v Value, whole: bool) -> Result<Space<'v>> {
    let number = |v: &Value| v.as_float().or(v.as_integer().map(|i| i as f64));
    let shape =
        "a list of values, or a range such as { from = 1e-5, to = 1e-3 } (log = false: not logarithmic)";
    match value {
        Value::Array(values) if !values.is_empty() => Ok(Space::Values(values)),
        Value::Table(range) => {
            let known = ["from", "to", "log"];
            if let Some(other) = range.keys().find(|k| !known.contains(&k.as_str())) {
                return Err(crate::base::error::unknown(
                    &format!("key of the range of `{key}`"),
                    other,
                    &known,
                ));
            }
            let end = |name: &str| range.get(name).and_then(number).filter(|x| x.is_finite());
            let log = match range.get("log") {
                None => true,
                Some(Value::Boolean(log)) => *log,
                Some(other) => return Err(anyhow!("`{key}`: log is {other}; it must be true or false")),
            };
            match (end("from"), end("to")) {
                (Some(from), Some(to)) if from < to && (!log || from > 0.0) => {
                    Ok(Space::Range { from, to, log, whole })
                }
                (Some(_), Some(_)) => Err(anyhow!(
                    "`{key}` is {value}; `from` must be below `to`, and above 0 on a logarithmic scale"
                )),
                _ => Err(anyhow!("`{key}` is {value}; it must be {shape}")),
            }
        }
        _ => Err(anyhow!("`{key}` is {value}; it must be {shape}")),
    }
}

/// Most trials of an arm: each of them is a training.
pub(super) const MOST_TRIALS: usize = 10_000;

/// Every combination, the last key fastest.
fn grid(spaces: &[(&String, Space<'_>)]) -> Result<Vec<Trial>> {
    let mut all: Vec<Vec<(String, Value)>> = vec![vec![]];
    for (key, space) in spaces {
        let Space::Values(values) = space else {
            return Err(anyhow!("`{key}` is a range; a grid takes lists of values"))
                .hint("list the values, or set tune.search = \"random\"");
        };
        if all.len().saturating_mul(values.len()) > MOST_TRIALS {
            return Err(anyhow!("its grid has more than {MOST_TRIALS} points"))
                .hint("list fewer values, or set tune.search = \"random\"");
        }
        let longer = |head: &Vec<(String, Value)>| {
            values
                .iter()
                .map(|v| head.iter().cloned().chain([((*key).clone(), v.clone())]).collect())
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    Ok(all.into_iter().enumerate().map(|(i, values)| Trial { index: i + 1, values }).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Plan};
    use super::*;
    use crate::base::error::render;

    const TUNED: &str = r#"
seeds = [1]
budget = { tokens = 1000 }
[model]
source = "world"
[data]
source = "world"
[tune]
trials = 5
[[arm]]
method = "kto"
tune = { learning_rate = { from = 1e-5, to = 1e-3 }, beta = [0.1, 0.5] }
[[arm]]
method = "dpo"
tune = { beta = { from = 0.1, to = 1.0, log = false } }
"#;

    fn parse(text: &str) -> Result<Plan> {
        Plan::parse(text, "p.toml", &Overrides::default())
    }

    fn trials(text: &str, arm: usize) -> Vec<Trial> {
        let plan = parse(text).unwrap_or_else(|e| panic!("{}", render(&e)));
        plan.arms[arm].trials(plan.tune.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn draws_are_seeded_in_range_and_an_arms_own() {
        let kto = trials(TUNED, 0);
        assert_eq!((kto.len(), kto[0].values.len()), (6, 0), "trial 0 is the arm as it stands");
        for trial in &kto[1..] {
            let [(b, beta), (l, rate)] = trial.values.as_slice() else { panic!("{trial:?}") };
            assert_eq!((b.as_str(), l.as_str()), ("beta", "learning_rate"));
            assert!([0.1, 0.5].contains(&beta.as_float().unwrap()));
            assert!((1e-5..=1e-3).contains(&rate.as_float().unwrap()));
        }
        assert!(kto[1..].windows(2).any(|w| w[0].values != w[1].values));
        assert_eq!(kto, trials(TUNED, 0));
        // Another arm before it changes nothing; another seed does.
        let more = TUNED.replacen("[[arm]]", "[[arm]]\nmethod = \"ipo\"\ntune.beta = [0.1]\n[[arm]]", 1);
        assert_eq!(kto, trials(&more, 1));
        assert_ne!(kto, trials(&TUNED.replace("trials = 5", "trials = 5\nseed = 1"), 0));
        // More trials begin with the same ones.
        assert_eq!(kto[..], trials(&TUNED.replace("trials = 5", "trials = 9"), 0)[..6]);
    }

    #[test]
    fn a_logarithmic_range_is_even_in_its_decades() {
        let many = trials(&TUNED.replace("trials = 5", "trials = 400"), 0);
        let low = many[1..].iter().filter(|t| t.values[1].1.as_float().unwrap() < 1e-4).count();
        assert!((150..=250).contains(&low), "{low} of 400 lie in the lower of two decades");
    }

    #[test]
    fn whole_numbers_are_drawn_where_the_key_takes_no_others() {
        let kto = trials(&TUNED.replace("beta = [0.1, 0.5]", "batch_size = { from = 8, to = 64 }"), 0);
        for trial in &kto[1..] {
            let [(b, size), (_, rate)] = trial.values.as_slice() else { panic!("{trial:?}") };
            assert!(b == "batch_size" && (8..=64).contains(&size.as_integer().unwrap()), "{trial:?}");
            assert!(rate.is_float());
        }
        // A real-valued key is drawn as a float, though both ends are written as integers.
        let beta = trials(&TUNED.replace("beta = [0.1, 0.5]", "beta = { from = 1, to = 3 }"), 0);
        assert!(beta[1..].iter().all(|t| t.values[0].1.is_float()), "{beta:?}");
    }

    /// Values that are sound together need not be with the arm's own.
    #[test]
    fn values_that_go_together_are_checked_together() {
        let rloo = "method = \"rloo\"\nsamples = 4\nbatch_size = 32\n\
                    tune = { batch_size = [64, 128], samples = [4, 64] }";
        let (head, _) = TUNED.split_once("[[arm]]").unwrap();
        let grid = head.replace("trials = 5", "trials = 4\nsearch = \"grid\"") + "[[arm]]\n" + rloo;
        assert_eq!(trials(&grid, 0).len(), 5);
        let text = render(&parse(&grid.replace("[64, 128]", "[64, 96]")).unwrap_err());
        assert!(text.contains("trial batch_size=96 samples=64") && text.contains("multiple"), "{text}");
    }

    #[test]
    fn a_trial_is_an_arm_with_its_values() {
        let plan = parse(TUNED).unwrap();
        let arm = plan.arms[0]
            .with(&[("beta".into(), Value::Float(0.7)), ("learning_rate".into(), Value::Float(0.25))]);
        let arm = arm.unwrap();
        let Method::Kto(kto) = &arm.method else { panic!() };
        assert_eq!((kto.beta, arm.train.learning_rate, arm.name.as_str()), (0.7, 0.25, "kto"));
        assert!(plan.arms[0].with(&[("gamma".into(), Value::Float(0.7))]).is_err());
    }

    #[test]
    fn grids_have_as_many_points_as_there_are_trials_and_unfair_searches_are_refused() {
        let grid = TUNED
            .replace("trials = 5", "trials = 4\nsearch = \"grid\"")
            .replace("{ from = 1e-5, to = 1e-3 }", "[1e-5, 1e-4]")
            .replace("{ from = 0.1, to = 1.0, log = false }", "[0.1, 0.2, 0.3, 0.4]");
        let kto: Vec<String> = trials(&grid, 0).iter().map(Trial::text).collect();
        let all = [
            "",
            "beta=0.1 learning_rate=1e-5",
            "beta=0.1 learning_rate=0.0001",
            "beta=0.5 learning_rate=1e-5",
            "beta=0.5 learning_rate=0.0001",
        ];
        assert_eq!(kto, all);
        for (text, says) in [
            (grid.replace(", 0.4]", "]"), "makes a grid of 3 where tune.trials is 4"),
            (TUNED.replace("trials = 5", "trials = 4\nsearch = \"grid\""), "is a range; a grid takes lists"),
            (TUNED.replace("from = 1e-5", "from = 1"), "`from` must be below `to`"),
            (TUNED.replace("from = 1e-5", "from = 0"), "above 0 on a logarithmic scale"),
            (TUNED.replace("from = 1e-5", "form = 1e-5"), "did you mean `from`"),
            (TUNED.replace("log = false", "log = 1"), "`beta`: log is 1; it must be true or false"),
            (TUNED.replace("log = false", "log = \"true\""), "log is \"true\"; it must be"),
            (TUNED.replace("learning_rate =", "learning_rat ="), "unknown key to tune `learning_rat`"),
            (TUNED.replace("[0.1, 0.5]", "[0.1, -0.5]"), "above 0"),
            (TUNED.replace("from = 1e-5, to = 1e-3", "from = -1e-4, to = 1e-4, log = false"), "is -0.0001"),
            (TUNED.replace("beta = [0.1, 0.5]", "warmup = [0.1, 1.5]"), "p.toml:12: warmup = 1.5: "),
            (TUNED.replace("beta = [0.1, 0.5]", "batch_size = [0, 32]"), "is 0"),
            (
                TUNED.replace("beta = { from = 0.1, to = 1.0, log = false }", "batch_size = [32, 31]"),
                "batch_size = 31: ",
            ),
            (
                TUNED.replace(
                    "beta = { from = 0.1, to = 1.0, log = false }",
                    "batch_size = { from = 8, to = 64 }",
                ),
                "a draw of `batch_size` may be any whole number: list its values",
            ),
            (TUNED.replace("trials = 5", "trials = 0"), "at least 1"),
            (TUNED.replace("trials = 5", "trials = 9223372036854775807"), "at most 10000"),
            (TUNED.replace("trials = 5", "trials = 5\nvalidation = 1.0"), "(0, 1)"),
            (
                TUNED.replace("[tune]", "[data.feedback]\nfraction = 0.1\n[tune]"),
                "stands beside data.feedback",
            ),
        ] {
            let error = render(&parse(&text).expect_err("refused"));
            assert!(error.contains(says) && error.contains("p.toml"), "{error}\n  lacks: {says}");
        }
    }
}
