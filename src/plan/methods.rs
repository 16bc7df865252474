//! The keys that each method takes in a plan, with their defaults and what they may be.
//!
//! Adding a method: a variant of [`Method`] and an entry of [`METHODS`]. What a method is (its equation,
//! paper, feedback) stands with its objective.

use serde::Deserialize;
use toml::{Table, Value};

use super::online;
use super::range::Range;
use super::source::Source;
use super::types::Method;
use crate::base::error::{Result, anyhow};

/// A method as a plan sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodKeys {
    /// As in `method = "…"`.
    pub name: &'static str,
    /// Completions of one example: 2 where the method needs pairs. A batch holds whole examples.
    pub unit: usize,
    pub keys: &'static [Key],
}

/// A hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    pub name: &'static str,
    pub takes: Takes,
    pub help: &'static str,
}

/// What a key may be, and its default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    Number(Range, f64),
    /// A weight ≥ 0, `counts` or, as by default, `auto`.
    WeightOrAuto,
    /// One of the words; the first is the default.
    Word(&'static [&'static str]),
    Flag(bool),
    /// Any text but none; the default.
    Text(&'static str),
    /// A whole number, at least the first; the second is the default.
    Count(usize, usize),
}

impl Takes {
    pub fn default(self) -> Value {
        match self {
            Takes::Number(_, x) => Value::Float(x),
            Takes::WeightOrAuto => Value::String(AUTO.into()),
            Takes::Word(words) => Value::String(words[0].into()),
            Takes::Text(text) => Value::String(text.into()),
            Takes::Flag(on) => Value::Boolean(on),
            Takes::Count(_, n) => Value::Integer(n as i64),
        }
    }

    /// Valid values, in words.
    pub fn words(self) -> String {
        match self {
            Takes::Number(range, _) => range.words().to_owned(),
            Takes::WeightOrAuto => format!("\"auto\" or \"counts\" or {}", Range::NonNegative.words()),
            Takes::Word(words) => words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or "),
            Takes::Text(_) => "a text".to_owned(),
            Takes::Flag(_) => "true or false".to_owned(),
            Takes::Count(least, _) => format!("a whole number, {least} or above"),
        }
    }

    fn accepts(self, value: &Value) -> bool {
        let number = || value.as_float().or(value.as_integer().map(|i| i as f64));
        match self {
            Takes::Number(range, _) => number().is_some_and(|x| range.holds(x)),
            Takes::WeightOrAuto => {
                value.as_str().is_some_and(|w| [AUTO, COUNTS].contains(&w))
                    || number().is_some_and(|x| Range::NonNegative.holds(x))
            }
            Takes::Word(words) => value.as_str().is_some_and(|w| words.contains(&w)),
            Takes::Text(_) => value.as_str().is_some_and(|w| !w.is_empty()),
            Takes::Flag(_) => value.as_bool().is_some(),
            Takes::Count(least, _) => value.as_integer().is_some_and(|n| n >= least as i64),
        }
    }
}

const AUTO: &str = "auto";
const COUNTS: &str = "counts";

const fn beta(default: f64) -> Key {
    let help = "strength of the pull towards the reference";
    Key { name: "beta", takes: Takes::Number(Range::Positive, default), help }
}

const BETA: &[Key] = &[beta(0.1)];

const SMOOTHED: &[Key] = &[
    beta(0.1),
    Key {
        name: "label_smoothing",
        takes: Takes::Number(Range::Flip, 0.1),
        help: "probability that a label is flipped",
    },
];

const fn alpha(default: f64) -> Key {
    let help = "weight of the chosen completions' likelihood";
    Key { name: "alpha", takes: Takes::Number(Range::NonNegative, default), help }
}

const fn control(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, takes: Takes::Text(default), help }
}

const fn method(name: &'static str, unit: usize, keys: &'static [Key]) -> MethodKeys {
    MethodKeys { name, unit, keys }
}

/// Every method, in the order in which they are listed to people.
pub const METHODS: &[MethodKeys] = &[
    method("sft", 1, &[]),
    method(
        "kto",
        1,
        &[
            beta(0.1),
            Key {
                name: "lambda_desirable",
                takes: Takes::WeightOrAuto,
                help: "λ_D; auto: from the class counts by the paper's rule; counts: inverse to them",
            },
            Key {
                name: "lambda_undesirable",
                takes: Takes::WeightOrAuto,
                help: "λ_U; auto: from the class counts by the paper's rule; counts: inverse to them",
            },
            Key {
                name: "z0",
                takes: Takes::Word(&["next", "previous", "reversed", "zero"]),
                help: "whose completion each prompt is mismatched with for the reference point",
            },
        ],
    ),
    method("dpo", 2, BETA),
    method(
        "ipo",
        2,
        &[
            beta(0.1),
            Key {
                name: "length_normalised",
                takes: Takes::Flag(false),
                help: "divide log-ratios by their completion's tokens (TRL, HALOs)",
            },
        ],
    ),
    method("cdpo", 2, SMOOTHED),
    method("robust-dpo", 2, SMOOTHED),
    method("hinge", 2, BETA),
    method(
        "simpo",
        2,
        &[
            beta(2.0),
            Key {
                name: "gamma",
                takes: Takes::Number(Range::NonNegative, 1.0),
                help: "target margin (not the ratio γ/β)",
            },
        ],
    ),
    method(
        "orpo",
        2,
        &[
            Key {
                name: "beta",
                takes: Takes::Number(Range::Positive, 0.1),
                help: "weight of the odds-ratio term (the paper's λ)",
            },
            Key {
                name: "likelihood",
                takes: Takes::Word(&["sequence", "completion"]),
                help: "what the likelihood term covers",
            },
        ],
    ),
    method("cpo", 2, &[beta(0.1), alpha(1.0)]),
    method("slic", 2, &[beta(1.0), alpha(1.0)]),
    method("apo-zero", 2, BETA),
    method("apo-down", 2, BETA),
    method("sigmoid-norm", 2, &[beta(2.0)]),
    method("sppo-hard", 2, BETA),
    method("nca", 2, &[beta(0.01)]),
    method("bco", 1, BETA),
    method(
        "csft",
        1,
        &[
            control(
                "desirable_token",
                "<|good|>",
                "stands before desirable completions, and when the policy is asked",
            ),
            control("undesirable_token", "<|bad|>", "stands before undesirable completions"),
        ],
    ),
    method(
        "unlikelihood",
        1,
        &[Key {
            name: "alpha",
            takes: Takes::Number(Range::NonNegative, 1.0),
            help: "weight of the undesirable completions' unlikelihood",
        }],
    ),
    method("reward", 2, &[]),
    method("rloo", 1, online::RLOO),
    method("grpo", 1, online::GRPO),
    method("ppo", 1, online::PPO),
    method("ppo-offline", 1, online::PPO_OFFLINE),
    method("online-dpo", 1, online::ONLINE_DPO),
    method("online-kto", 1, online::ONLINE_KTO),
];

/// An arm that names a command and no method.
const EXTERNAL: MethodKeys = method("external", 1, &[]);

/// Names of the methods, in listing order.
pub fn method_names() -> Vec<&'static str> {
    METHODS.iter().map(|m| m.name).collect()
}

impl Method {
    /// What a plan's `method = "…"` says.
    pub fn name(&self) -> &'static str {
        self.keys().name
    }

    /// The entry of [`METHODS`].
    pub fn keys(&self) -> &'static MethodKeys {
        if *self == Method::External {
            return &EXTERNAL;
        }
        let table = Table::try_from(self).expect("a method is a table");
        let name = table["name"].as_str().expect("serde tags a method by its name").to_owned();
        METHODS.iter().find(|m| m.name == name).expect("every method has its entry (a test holds it)")
    }

    /// Every hyperparameter as a plan writes it, in the order of [`MethodKeys::keys`].
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let mut table = Table::try_from(self).expect("a method is a table");
        split_lambda(&mut table);
        self.keys().keys.iter().map(|k| (k.name, table[k.name].clone())).collect()
    }
}

impl MethodKeys {
    /// The method with the hyperparameters that an arm gives (keys that are no hyperparameter are ignored
    /// here) and defaults for the rest.
    ///
    /// # Errors
    /// A value outside its range; `path` is the arm's, for the message.
    pub(super) fn build(&self, given: &Table, source: &Source, path: &str) -> Result<Method> {
        let mut table = Table::new();
        for key in self.keys {
            let value = given.get(key.name).cloned().unwrap_or_else(|| key.takes.default());
            if !key.takes.accepts(&value) {
                let must = format!("is {value}; it must be {}", key.takes.words());
                return Err(source.error(&format!("{path}.{}", key.name), must));
            }
            let whole = matches!(key.takes, Takes::Count(..));
            table.insert(key.name.to_owned(), if whole { value } else { as_float(value) });
        }
        join_lambda(&mut table).map_err(|e| source.error(&format!("{path}.lambda_desirable"), e))?;
        table.insert("name".to_owned(), Value::String(self.name.to_owned()));
        Method::deserialize(table).map_err(|e| source.error(path, e.message()))
    }
}

fn as_float(value: Value) -> Value {
    match value {
        Value::Integer(i) => Value::Float(i as f64),
        other => other,
    }
}

const LAMBDAS: [&str; 2] = ["lambda_desirable", "lambda_undesirable"];

/// Two keys of a plan become one field: both weights are given, or both come from the class counts.
fn join_lambda(table: &mut Table) -> Result<()> {
    let (Some(desirable), Some(undesirable)) = (table.remove(LAMBDAS[0]), table.remove(LAMBDAS[1])) else {
        return Ok(());
    };
    let lambda = match (desirable.as_float(), undesirable.as_float()) {
        (None, None) if desirable == undesirable => desirable,
        (Some(d), Some(u)) if d == 0.0 && u == 0.0 => {
            return Err(anyhow!("and `lambda_undesirable` are both 0: nothing would be learned"));
        }
        (Some(_), Some(_)) => {
            let fixed: Table = [("desirable".to_owned(), desirable), ("undesirable".to_owned(), undesirable)]
                .into_iter()
                .collect();
            Value::Table([("fixed".to_owned(), Value::Table(fixed))].into_iter().collect())
        }
        _ => return Err(anyhow!("and `lambda_undesirable` go together: give both, or neither")),
    };
    table.insert("lambda".to_owned(), lambda);
    Ok(())
}

fn split_lambda(table: &mut Table) {
    let Some(lambda) = table.remove("lambda") else { return };
    let fixed = lambda.get("fixed");
    for (key, field) in LAMBDAS.iter().zip(["desirable", "undesirable"]) {
        let value = fixed.and_then(|f| f.get(field)).unwrap_or(&lambda);
        table.insert((*key).to_owned(), value.clone());
    }
}
