//! What Markdown, HTML and terminal all say: verdict sentences, the banner, the tables.

use serde::Serialize;

use super::currencies::PairStanding;
use super::figures::{Currency, Figures, LedgerArm, MOST_APART};
use super::format::{Unit, capitalised, plain, si};
use super::view::{ALL, Metric, View, distinct};
use crate::record::{ComparisonRow, Direction, Family, SENTINEL, Verdict};

/// The comparisons of the plan's question; where the plan names no metric of these suites as primary, those on
/// the metric that stands for each suite.
pub fn headlines<'f>(view: &View<'_>, figures: &'f Figures) -> Vec<&'f ComparisonRow> {
    headline_rows(view, figures.comparisons.iter().map(|c| &c.row))
}

/// [`headlines`] of these rows.
pub fn headline_rows<'c>(
    view: &View<'_>,
    rows: impl Iterator<Item = &'c ComparisonRow>,
) -> Vec<&'c ComparisonRow> {
    let rows: Vec<_> = rows.filter(|c| c.subset == ALL).collect();
    if rows.iter().any(|c| c.family == Family::Primary) {
        return rows.into_iter().filter(|c| c.family == Family::Primary).collect();
    }
    let metrics: Vec<_> = view.suites().iter().filter_map(|s| view.headline_of(s)).collect();
    rows.into_iter().filter(|c| metrics.iter().any(|m| c.suite == m.suite && c.metric == m.name)).collect()
}

/// That no comparison is on a metric of the plan's question, where that is so.
pub fn exploratory(view: &View<'_>, figures: &Figures) -> Option<String> {
    let mut families = figures.comparisons.iter().map(|c| c.row.family).peekable();
    families.peek()?;
    if families.any(|family| family != Family::Secondary) {
        return None;
    }
    let primary = view.planned(&["verdict", "primary"]).and_then(|v| v.as_array()).into_iter().flatten();
    let names: Vec<String> = primary.filter_map(|v| v.as_str()).map(super::format::metric).collect();
    Some(match names.as_slice() {
        [] => "Exploratory: the plan names no primary metric.".to_owned(),
        names => format!(
            "Exploratory: the suites measure none of the plan's primary metrics ({}); no comparison answers its question.",
            names.join(", ")
        ),
    })
}

/// The comparisons with the starting checkpoint on the plan's metrics: did training help at all?
pub fn against_base(figures: &Figures) -> Vec<&ComparisonRow> {
    let rows = figures.comparisons.iter().map(|c| &c.row);
    rows.filter(|c| c.subset == ALL && c.family == Family::Base).collect()
}

/// The same, a line a metric: `world (win rate against base): sft better (+14.6), kto undecided (+0.3) points`.
pub fn base_lines(view: &View<'_>, figures: &Figures) -> Vec<String> {
    let rows = against_base(figures);
    let same = |a: &&ComparisonRow, b: &&ComparisonRow| (&a.suite, &a.metric) == (&b.suite, &b.metric);
    rows.chunk_by(same)
        .map(|rows| {
            let unit = view.metric(&rows[0].suite, &rows[0].metric).map_or(Unit::Plain, |m| m.unit);
            let arm = |c: &&ComparisonRow| match c.verdict {
                Verdict::Invalid => format!("{} no verdict", c.arm_a),
                verdict => {
                    format!(
                        "{} {} ({})",
                        c.arm_a,
                        super::charts::verdict_word(verdict),
                        unit.bound(c.difference)
                    )
                }
            };
            let arms: Vec<_> = rows.iter().map(arm).collect();
            let said = rows.iter().any(|c| c.verdict != Verdict::Invalid);
            let points = if unit == Unit::Share && said { " points" } else { "" };
            let name = super::format::metric(&rows[0].metric);
            let even = view.metric(&rows[0].suite, &rows[0].metric).is_some_and(|m| view.even_base(&m));
            let even = if even { ", where it stands at even odds by definition" } else { "" };
            format!("{} ({name}{even}): {}{points}", rows[0].suite, arms.join(", "))
        })
        .collect()
}

/// The verdict for a place beside a comparison's sentence, which begins with the arm ahead: it speaks of that one,
/// whichever stands first in the pair.
pub fn beside_words(c: &ComparisonRow) -> &'static str {
    super::charts::verdict_word(if c.verdict == Verdict::Worse { Verdict::Better } else { c.verdict })
}

/// Verdicts in a few words, for alternative texts: `world, win rate against base: sft − dpo undecided (−4.8)`.
pub fn verdicts_in_words(view: &View<'_>, rows: &[&ComparisonRow]) -> String {
    let same = |a: &&ComparisonRow, b: &&ComparisonRow| (&a.suite, &a.metric) == (&b.suite, &b.metric);
    let block = |rows: &[&ComparisonRow]| {
        let unit = view.metric(&rows[0].suite, &rows[0].metric).map_or(Unit::Plain, |m| m.unit);
        let pair = |c: &&ComparisonRow| {
            let verdict = super::charts::verdict_word(c.verdict);
            format!("{} − {} {verdict} ({})", c.arm_a, c.arm_b, unit.difference(c.difference))
        };
        let pairs: Vec<_> = rows.iter().map(pair).collect();
        format!("{}, {}: {}.", rows[0].suite, super::format::metric(&rows[0].metric), pairs.join(", "))
    };
    rows.chunk_by(same).map(block).collect::<Vec<_>>().join(" ")
}

/// Shares of the variance of a mean difference by source: seeds, prompts, judge, the rest; they add up to 1. With one
/// seed only prompts can be told. Var = σ²_seed/S + σ²_prompt/C + (σ²_judge + σ²_residual)/(S C).
pub fn variance_shares(c: &ComparisonRow) -> [Option<f64>; 4] {
    let (s, cells) = (c.seeds as f64, (c.seeds * c.clusters) as f64);
    let parts = [
        c.variance_seed.map(|v| v / s),
        c.variance_prompt.map(|v| v / c.clusters as f64),
        c.variance_judge.map(|v| v / cells),
        c.variance_residual.map(|v| v / cells),
    ];
    let sum: f64 = parts.iter().flatten().sum();
    parts.map(|part| part.filter(|_| sum > 0.0).map(|v| v / sum))
}

/// Arms of which nothing can be said, and why.
pub fn lost_arms(figures: &Figures) -> Vec<String> {
    let arms = figures.ledger.arms.iter().filter(|a| a.finished < a.started || a.started == 0);
    let words = |a: &LedgerArm| {
        let said = match a.finished {
            0 => "nothing is said of it; the verdicts between the other arms stand",
            _ => "its verdicts stand on the others",
        };
        let notes = a.notes.join(" ");
        format!("{}: {} of {} runs finished; {said}. {notes}", a.arm, a.finished, a.started)
            .trim_end()
            .to_owned()
    };
    arms.map(words).collect()
}

/// What the contestants that ought to lose reached on a suite, a sentence a metric.
pub fn sentinels(view: &View<'_>, suite: &str) -> Vec<String> {
    let names =
        distinct(view.input.scores.iter().map(|s| s.arm.as_str()).filter(|a| a.starts_with(SENTINEL)));
    let sentence = |metric: Metric| {
        let reached: Vec<String> = names
            .iter()
            .filter_map(|name| {
                let score = view.score(&metric, ALL, name)?;
                Some(format!("{} {}", &name[SENTINEL.len()..], metric.unit.value(score.summary.mean)))
            })
            .collect();
        let text = format!("Contestants that ought to lose, {}: {}.", metric.label(), reached.join(", "));
        (!reached.is_empty()).then_some(text)
    };
    view.judged(suite).into_iter().filter_map(sentence).collect()
}

/// Why the comparison must not be read as one, where that is so.
pub fn banner(figures: &Figures) -> Option<String> {
    let ledger = &figures.ledger;
    let mut reasons = Vec::new();
    if let Some(apart) = ledger.apart.filter(|a| *a > MOST_APART) {
        let name = matched_label(figures);
        reasons.push(format!(
            "arms ended {} % apart in {name}, the matched currency (at most {} % is allowed)",
            plain(100.0 * apart),
            plain(100.0 * MOST_APART)
        ));
    }
    // A sentinel may have won: the verdicts know, and say why.
    let measured = figures.comparisons.iter().filter(|c| c.row.difference.is_finite());
    let mut verdicts = measured.map(|c| c.row.verdict).peekable();
    if reasons.is_empty() && verdicts.peek().is_some() && verdicts.all(|v| v == Verdict::Invalid) {
        reasons.push("every verdict below names the reason".to_owned());
    }
    (!reasons.is_empty()).then(|| format!("INVALID comparison: {}.", reasons.join("; ")))
}

pub fn matched_label(figures: &Figures) -> String {
    let found = figures.ledger.currencies.iter().find(|c| c.matched);
    found.map_or_else(|| "no currency".to_owned(), |c| c.label.to_owned())
}

/// What was matched, how far apart the arms were, and what was not matched, in a sentence.
pub fn ledger_words(figures: &Figures) -> String {
    let ledger = &figures.ledger;
    let matched = match ledger.apart {
        Some(apart) => {
            format!("Matched: {}; the arms ended {} % apart.", matched_label(figures), percent(apart))
        }
        None => "Nothing was matched, or runs are missing.".to_owned(),
    };
    let spent = ledger.currencies.iter().find(|c| c.matched).map(|c| c.means.as_slice()).unwrap_or_default();
    let silent = ledger.arms.iter().zip(spent).filter(|(_, mean)| **mean == Some(0.0));
    let silent: Vec<&str> = silent.map(|(a, _)| a.arm.as_str()).collect();
    let matched = match silent.is_empty() {
        true => matched,
        false => format!("{matched} Of {} it is not known: its trainer does not say.", silent.join(", ")),
    };
    let other = ledger.currencies.iter().filter(|c| !c.matched && judged_currency(c));
    let apart: Vec<_> = other
        .filter_map(|c| {
            c.apart.filter(|a| *a > MOST_APART).map(|a| format!("{} ({} % apart)", c.label, percent(a)))
        })
        .collect();
    let unmatched = match apart.as_slice() {
        [] => String::new(),
        apart => format!(" Not matched: {}.", apart.join(", ")),
    };
    let uneven = ledger.uneven.as_ref().map(|words| format!(" {words}")).unwrap_or_default();
    format!("{matched}{unmatched}{uneven}")
}

/// What a reader must know of the base's place in a suite's table, where the table does not give its scores.
pub fn base_note(view: &View<'_>, suite: &str) -> Option<String> {
    let metrics: Vec<Metric> = view.metrics(suite).into_iter().filter(|m| view.even_base(m)).collect();
    let judged: Vec<String> = metrics
        .iter()
        .filter(|m| m.direction != Direction::Neutral)
        .map(|m| super::format::metric(&m.name))
        .collect();
    (!judged.is_empty()).then(|| {
        format!(
            "No score of the base on {}: its implicit reward is 0 by definition, which gives even odds on every pair \
             (accuracy 50 %, Brier score 0.25).",
            judged.join(", ")
        )
    })
}

/// Speed and memory are measurements, not spending.
fn judged_currency(c: &Currency) -> bool {
    !matches!(c.column, "tokens_per_second" | "peak_host_mib" | "peak_device_mib" | "epochs")
}

fn percent(share: f64) -> String {
    let v = 100.0 * share;
    match v {
        v if v < 10.0 => super::format::decimals(v, 2),
        // 99.97 is written 100, not 100.0.
        v if v >= 99.95 => super::format::decimals(v, 0),
        v => plain(v),
    }
}

/// A cell of a table: its text, and the value to sort by where it is a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    pub text: String,
    pub sort: Option<f64>,
    /// Further lines, smaller.
    pub sub: String,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), sort: None, sub: String::new() }
    }

    pub fn number(text: impl Into<String>, sort: f64) -> Self {
        Self { text: text.into(), sort: Some(sort), sub: String::new() }
    }
}

/// A row a comparison: difference, interval, adjusted p and verdict. The first row is the head; empty without rows.
pub fn verdict_table(view: &View<'_>, rows: &[&ComparisonRow]) -> Vec<Vec<Cell>> {
    let interval = format!("{} interval, not corrected", view.confidence());
    let head = ["comparison", "difference", &interval, "p (Holm)", "verdict"].map(Cell::text);
    let row = |c: &&ComparisonRow| {
        let unit = view.metric(&c.suite, &c.metric).map_or(Unit::Plain, |m| m.unit);
        let name = super::format::metric(&c.metric);
        vec![
            Cell::text(format!("{}, {name}: {} − {}", c.suite, c.arm_a, c.arm_b)),
            Cell::number(unit.difference(c.difference), c.difference),
            Cell::number(unit.interval_words(c.low, c.high), c.low),
            p_cell(view, c),
            Cell::text(super::charts::verdict_word(c.verdict)),
        ]
    };
    if rows.is_empty() {
        return Vec::new();
    }
    std::iter::once(head.to_vec()).chain(rows.iter().map(row)).collect()
}

/// The p that a verdict rests on, after Holm: of the test of no difference, or of equivalence where that is the verdict.
pub fn p_of_verdict(view: &View<'_>, c: &ComparisonRow) -> f64 {
    if c.verdict == Verdict::Equivalent { view.p_equivalence(c) } else { c.p_adjusted }
}

fn p_cell(view: &View<'_>, c: &ComparisonRow) -> Cell {
    let p = p_of_verdict(view, c);
    let of = if c.verdict == Verdict::Equivalent { " (equivalence)" } else { "" };
    Cell::number(format!("{}{of}", super::format::p_value(p)), p)
}

/// A row a metric, a column an arm: narrow enough for a terminal and for Markdown. The first row is the head.
pub fn metric_table(view: &View<'_>, figures: &Figures, suite: &str) -> Vec<Vec<Cell>> {
    let metrics = view.metrics(suite);
    let scored = |arm: &str| metrics.iter().any(|m| figures.score(suite, &m.name, arm).is_some());
    let arms: Vec<&str> = view.arms.iter().map(|a| a.name.as_str()).filter(|a| scored(a)).collect();
    let head = arms.iter().map(|a| Cell::text(*a));
    let mut rows = vec![std::iter::once(Cell::text("mean ± se over seeds")).chain(head).collect::<Vec<_>>()];
    for metric in &metrics {
        let cells = arms.iter().map(|arm| match figures.score(suite, &metric.name, arm) {
            None => Cell::text("–"),
            Some(score) => {
                let spread = spread_words(metric, score.standard_error);
                Cell::number(format!("{}{spread}", metric.unit.value(score.mean)), score.mean)
            }
        });
        let name = Cell::text(format!("{}{}", metric.label(), arrow(metric.direction)));
        rows.push(std::iter::once(name).chain(cells).collect());
    }
    rows
}

/// ` ± 0.3`; nothing where the seeds agree to the bit, as those of an untrained checkpoint do.
fn spread_words(metric: &Metric, error: Option<f64>) -> String {
    error.filter(|e| *e > 0.0).map(|e| format!(" ± {}", metric.unit.spread(e))).unwrap_or_default()
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Higher => " ↑",
        Direction::Lower => " ↓",
        Direction::Neutral => "",
    }
}

/// A row an arm, a column a metric: `61.2 %`, below it `± 0.8` and `Δ +11.2` to the base. The first row is the head.
pub fn arm_table(view: &View<'_>, figures: &Figures, suite: &str) -> Vec<Vec<Cell>> {
    let metrics = view.metrics(suite);
    let head =
        metrics.iter().map(|m| Cell::text(format!("{}{}", capitalised(&m.label()), arrow(m.direction))));
    let mut rows = vec![std::iter::once(Cell::text("arm")).chain(head).collect::<Vec<_>>()];
    for arm in &view.arms {
        let cells: Vec<_> = metrics.iter().map(|m| score_cell(figures, m, &arm.name)).collect();
        if cells.iter().any(|c| c.sort.is_some()) {
            rows.push(std::iter::once(Cell::text(arm.name.as_str())).chain(cells).collect());
        }
    }
    rows
}

fn score_cell(figures: &Figures, metric: &Metric, arm: &str) -> Cell {
    let Some(score) = figures.score(&metric.suite, &metric.name, arm) else { return Cell::text("–") };
    let spread = spread_words(metric, score.standard_error).trim().to_owned();
    let change = score.difference_to_base.map(|d| format!("Δ {}", metric.unit.bound(d)));
    let lines: Vec<String> = [spread].into_iter().filter(|s| !s.is_empty()).chain(change).collect();
    Cell { sub: lines.join("\n"), ..Cell::number(metric.unit.value(score.mean), score.mean) }
}

/// A row a primary comparison, a column a currency that was not matched: how the verdict stands in it. Empty
/// where the arms spent the same in all of them.
pub fn standings_table(figures: &Figures) -> Vec<Vec<Cell>> {
    let standings = &figures.standings;
    if standings.pairs.is_empty() {
        return Vec::new();
    }
    let head = ["comparison", "verdict"].into_iter().map(str::to_owned);
    let head = head.chain(standings.currencies.iter().map(|c| format!("matched on {c}"))).map(Cell::text);
    let row = |p: &PairStanding| {
        let first = [p.comparison.clone(), p.verdict.to_owned()];
        first.into_iter().chain(p.standings.iter().cloned()).map(Cell::text).collect()
    };
    std::iter::once(head.collect()).chain(standings.pairs.iter().map(row)).collect()
}

/// A row a currency, a column an arm, then how far apart they are. The first row is the head.
pub fn ledger_table(figures: &Figures) -> Vec<Vec<Cell>> {
    let ledger = &figures.ledger;
    let arms = ledger.arms.iter().map(|a| Cell::text(a.arm.as_str()));
    let mut rows = vec![
        [Cell::text("mean a run")].into_iter().chain(arms).chain([Cell::text("apart")]).collect::<Vec<_>>(),
    ];
    for currency in ledger.currencies.iter().filter(|c| c.means.iter().flatten().any(|m| *m > 0.0)) {
        let matched = if currency.matched { " (matched)" } else { "" };
        let label = Cell::text(format!("{}{matched}", currency.label));
        let amount = |m: &Option<f64>| m.map_or(Cell::text("–"), |m| Cell::number(si(m), m));
        let apart =
            currency.apart.map_or(Cell::text("–"), |a| Cell::number(format!("{} %", percent(a)), a));
        rows.push([label].into_iter().chain(currency.means.iter().map(amount)).chain([apart]).collect());
    }
    rows
}
