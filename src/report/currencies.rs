//! The verdicts under the currencies that were not matched: what can be said, and what it would take to know.

use serde::Serialize;

use super::figures::{Currency, Ledger, MOST_APART};
use super::format::{metric, plain, si};
use super::summary::mean;
use super::timing;
use super::view::View;
use crate::record::{ComparisonRow, StepRow};
use crate::stats::standing::{Standing, standing};

/// Currencies that a reader may care about more than for the matched one, with the key of a budget in them.
const CURRENCIES: [(&str, Option<&str>); 6] = [
    ("policy_tokens", Some("tokens")),
    ("flops", Some("flops")),
    ("train_seconds", Some("seconds")),
    ("labels", Some("labels")),
    ("examples", Some("examples")),
    ("steps", Some("steps")),
];
/// The share of a run, before a point, over which the training margin there is averaged.
const WINDOW: f64 = 0.1;

/// What the verdicts say in the other currencies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standings {
    /// Currencies in which the arms ended more than [`MOST_APART`] apart, in words.
    pub currencies: Vec<String>,
    pub pairs: Vec<PairStanding>,
    pub cuts: Vec<Cut>,
}

/// A comparison, and how it stands in each of the currencies.
#[derive(Clone, Debug, Serialize)]
pub struct PairStanding {
    pub comparison: String,
    pub verdict: &'static str,
    pub standings: Vec<String>,
}

/// Every arm at the point where it had spent as much as the arm that spent least.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    pub currency: String,
    /// The least that an arm spent in all, and which.
    pub least: f64,
    pub least_arm: String,
    /// Arms that spent more than that.
    pub arms: Vec<ArmCut>,
    /// What to set to measure it; empty where no budget can be set in this currency.
    pub set: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct ArmCut {
    pub arm: String,
    /// Of its run, in [0, 1].
    pub share: f64,
    /// Reward margin on its training batches there and at the end, for methods that have one.
    pub margin: Option<(f64, f64)>,
    pub rows: String,
}

/// The standings of these comparisons between trained arms.
pub fn standings<'c>(
    view: &View<'_>,
    ledger: &Ledger,
    comparisons: impl Iterator<Item = &'c ComparisonRow>,
) -> Standings {
    let apart = |c: &Currency| !c.matched && c.apart.is_some_and(|a| a > MOST_APART);
    let found: Vec<(Currency, Option<&str>)> = CURRENCIES
        .iter()
        .filter_map(|(column, key)| Some((ledger.currencies.iter().find(|c| c.column == *column)?, *key)))
        .filter(|(c, _)| apart(c))
        .map(|(c, key)| (typical(view, ledger, c), key))
        .collect();
    if found.is_empty() {
        return Standings::default();
    }
    let spent = |currency: &Currency, arm: &str| {
        let at = ledger.arms.iter().position(|a| a.arm == arm)?;
        currency.means[at].filter(|m| *m > 0.0)
    };
    let pairs = comparisons.filter_map(|row| {
        let cell = |(currency, _): &(Currency, Option<&str>)| {
            Some(words(row, spent(currency, &row.arm_a)?, spent(currency, &row.arm_b)?))
        };
        Some(PairStanding {
            comparison: format!("{}, {}: {} − {}", row.suite, metric(&row.metric), row.arm_a, row.arm_b),
            verdict: super::charts::verdict_word(row.verdict),
            standings: found.iter().map(cell).collect::<Option<_>>()?,
        })
    });
    Standings {
        pairs: pairs.collect(),
        currencies: found.iter().map(|(c, _)| c.label.to_owned()).collect(),
        cuts: found.iter().filter_map(|(c, key)| cut(view, ledger, c, *key)).collect(),
    }
}

/// The currency as it is in the ledger; of time the median of an arm's runs, for other work on the machine is none of its
/// spending.
fn typical(view: &View<'_>, ledger: &Ledger, currency: &Currency) -> Currency {
    if currency.column != "train_seconds" {
        return currency.clone();
    }
    let means = ledger.arms.iter().map(|a| timing::typical(view, &a.arm)).collect();
    Currency { label: "training seconds (median)", means, ..currency.clone() }
}

fn words(row: &ComparisonRow, a: f64, b: f64) -> String {
    let (less, share) = if a < b { (&row.arm_a, a / b) } else { (&row.arm_b, b / a) };
    let spent = format!("{less} spent {}\u{a0}%", plain(100.0 * share));
    match standing(row.verdict, a, b, MOST_APART) {
        None => "no verdict".to_owned(),
        Some(Standing::Matched) => "the same".to_owned(),
        Some(Standing::Stands) => format!("stands ({spent})"),
        Some(Standing::Open) => format!("open ({spent})"),
        Some(Standing::CouldMoveTo(_)) => {
            format!("could move to {less} (spent {}\u{a0}%)", plain(100.0 * share))
        }
    }
}

fn cut(view: &View<'_>, ledger: &Ledger, currency: &Currency, key: Option<&str>) -> Option<Cut> {
    let spent: Vec<(&str, f64)> =
        ledger.arms.iter().zip(&currency.means).filter_map(|(a, m)| Some((a.arm.as_str(), (*m)?))).collect();
    let (least_arm, least) = *spent.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let more = spent.iter().filter(|(_, m)| m / least - 1.0 > MOST_APART);
    let arms = more.map(|(arm, m)| {
        let share = least / m;
        let by_time = currency.column == "train_seconds";
        let margin = margin_at(view, arm, share, by_time).zip(margin_at(view, arm, 1.0, by_time));
        ArmCut { arm: (*arm).to_owned(), share, margin, rows: format!("steps.csv[arm={arm}]") }
    });
    let amount = |key: &str| match key {
        "flops" => format!("budget.flops={least:.3e}"),
        "seconds" => format!("budget.seconds={least:.1}"),
        key => format!("budget.{key}={least:.0}"),
    };
    Some(Cut {
        currency: currency.label.to_owned(),
        least,
        least_arm: least_arm.to_owned(),
        arms: arms.collect(),
        set: key.map(amount).unwrap_or_default(),
    })
}

/// Mean over seeds of the training margin in the [`WINDOW`] before `share` of the run, by time or by tokens.
fn margin_at(view: &View<'_>, arm: &str, share: f64, by_time: bool) -> Option<f64> {
    let margins = view.runs(arm).into_iter().filter_map(|(_, run)| {
        let steps: Vec<&StepRow> = view.input.steps.iter().filter(|s| s.run == run.run).collect();
        let amount = |s: &StepRow| if by_time { s.seconds } else { s.policy_tokens as f64 };
        let total: f64 = steps.iter().map(|s| amount(s)).sum();
        let (mut spent, mut window) = (0.0, Vec::new());
        for step in &steps {
            spent += amount(step) / total;
            // The last step's sum may round to just above 1.
            if spent > share - WINDOW && spent <= share + 1e-9 {
                window.extend(step.margin.filter(|m| m.is_finite()));
            }
        }
        (!window.is_empty()).then(|| mean(&window))
    });
    let margins: Vec<f64> = margins.collect();
    (!margins.is_empty()).then(|| mean(&margins))
}

/// What the standings mean, in a sentence or two.
pub const LEGEND: &str = "The verdicts hold for the matched currency. Nothing was scored in mid-run, so for the others \
    only a direction can be told, on the assumption that an arm does not get worse with more budget. Stands: the \
    winner spent less. Open: the winner spent more, and might not have won with less. Could move to an arm: it was \
    not decided, and that arm spent less. HERE is the folder of this report, whose plan lies beside it.";

impl Cut {
    /// `Matched on FLOPs at what sft spent (393 G), kto would stop at 50 % of its run (…).`
    pub fn sentence(&self) -> String {
        let arm = |a: &ArmCut| {
            let margin = a.margin.map(|(then, end)| {
                format!(" (training margin there {}, at its end {})", plain(then), plain(end))
            });
            format!(
                "{} would stop at {} % of its run{}",
                a.arm,
                plain(100.0 * a.share),
                margin.unwrap_or_default()
            )
        };
        let arms: Vec<_> = self.arms.iter().map(arm).collect();
        let how = match self.set.as_str() {
            "" => "A budget cannot be set in this currency".to_owned(),
            set => format!("To measure it: kto-eval compare HERE/plan.toml --set {set} --out DIR"),
        };
        let (currency, least) = (&self.currency, si(self.least));
        format!(
            "Matched on {currency} at what {} spent ({least}), {}. {how}.",
            self.least_arm,
            arms.join(", ")
        )
    }
}
