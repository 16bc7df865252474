//! `report.html`: one self-contained file. The template escapes everything but the drawings, the style
//! sheet and the script, which are this program's own.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use super::charts::{Drawing, Section, file_part, verdict_word};
use super::content::{self, Cell};
use super::currencies::LEGEND;
use super::figures::{Figures, Mark};
use super::format::{Unit, capitalised, metric, p_value};
use super::samples::{self, SuiteSamples};
use super::view::{ALL, View};
use crate::base::error::{Context, Result};
use crate::record::{ComparisonRow, Family, Verdict};

const TEMPLATE: &str = include_str!("report.html.j2");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

#[derive(Serialize)]
struct Page<'a> {
    name: &'a str,
    analysis: Vec<String>,
    facts: Vec<(&'static str, String)>,
    banner: Option<String>,
    /// Why no verdict is on the plan's question, where none is.
    exploratory: Option<String>,
    verdicts: Vec<Sentence>,
    base: Vec<Sentence>,
    lost: Vec<String>,
    head: Vec<Figure<'a>>,
    comparisons: usize,
    ledger_words: String,
    ledger: Table,
    standings: Table,
    standings_legend: &'static str,
    cuts: Vec<String>,
    suites: Vec<Suite<'a>>,
    training: Vec<Figure<'a>>,
    cost: Vec<Figure<'a>>,
    samples: Vec<SuiteSamples>,
    seeds: String,
    withheld: bool,
    plan: String,
    environment: String,
    figures: String,
    style: &'static str,
    script: &'static str,
}

#[derive(Serialize)]
struct Sentence {
    /// How the chip is drawn.
    class: &'static str,
    chip: &'static str,
    words: String,
}

impl Sentence {
    fn of(class: &'static str, words: String) -> Self {
        Self { class, chip: class, words }
    }

    fn of_pair(c: &ComparisonRow) -> Self {
        Self::of(content::beside_words(c), c.words.clone())
    }

    /// Here the chip speaks of the trained arm, whoever the sentence begins with.
    fn against_base(c: &ComparisonRow) -> Self {
        let chip = if c.verdict == Verdict::Worse { "worse than base" } else { verdict_word(c.verdict) };
        Self { chip, ..Self::of(verdict_word(c.verdict), c.words.clone()) }
    }
}

#[derive(Serialize)]
struct Suite<'a> {
    name: String,
    id: String,
    arms: Table,
    comparisons: Table,
    beside: Table,
    charts: Vec<Figure<'a>>,
}

#[derive(Serialize)]
struct Figure<'a> {
    name: &'a str,
    title: &'a str,
    caption: &'a str,
    svg: &'a str,
    marks: &'a [Mark],
}

#[derive(Serialize)]
struct Table {
    caption: String,
    head: Vec<Head>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Serialize)]
struct Head {
    text: String,
    /// A column of numbers, set to the right.
    number: bool,
}

impl Table {
    fn new(caption: impl Into<String>, mut rows: Vec<Vec<Cell>>) -> Self {
        let head = if rows.is_empty() { Vec::new() } else { rows.remove(0) };
        let number = |i: usize| rows.iter().any(|row| row.get(i).is_some_and(|c| c.sort.is_some()));
        let head =
            head.into_iter().enumerate().map(|(i, c)| Head { text: c.text, number: number(i) }).collect();
        Self { caption: caption.into(), head, rows }
    }
}

/// `report.html`: one file, with its styles, scripts and drawings in it.
///
/// # Errors
/// The template fails, which is a fault of this program.
pub fn render(view: &View<'_>, figures: &Figures, drawings: &[Drawing]) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.context("the template's syntax")?);
    environment.add_template("report", TEMPLATE).context("report.html.j2 does not parse")?;
    let template = environment.get_template("report").context("report.html.j2")?;
    let page = serde_json::to_value(page(view, figures, drawings)?).context("the report as JSON")?;
    template.render(context(page)).context("rendering report.html")
}

/// JSON as the template engine's own value.
fn context(value: Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(b) => b.into(),
        Value::Number(n) => {
            n.as_i64().map_or_else(|| n.as_f64().unwrap_or(f64::NAN).into(), minijinja::Value::from)
        }
        Value::String(s) => s.into(),
        Value::Array(items) => items.into_iter().map(context).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            fields.into_iter().map(|(k, v)| (k, context(v))).collect::<BTreeMap<_, _>>().into()
        }
    }
}

/// Paragraphs, which stand a blank line apart; line breaks within one are only the file's.
fn paragraphs(text: &str) -> Vec<String> {
    let words = |p: &str| p.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(words).filter(|p| !p.is_empty()).collect()
}

fn page<'a>(view: &'a View<'_>, figures: &'a Figures, drawings: &'a [Drawing]) -> Result<Page<'a>> {
    let text = |key: &str| view.planned(&[key]).and_then(Value::as_str).unwrap_or("");
    Ok(Page {
        name: view.name(),
        analysis: paragraphs(text("analysis")),
        facts: facts(view),
        banner: content::banner(figures),
        exploratory: content::exploratory(view, figures),
        verdicts: super::sweep::found(view.input)
            .into_iter()
            .map(|c| Sentence::of(c.finding.word(), c.words))
            .chain(content::headlines(view, figures).into_iter().map(Sentence::of_pair))
            .collect(),
        base: content::against_base(figures).into_iter().map(Sentence::against_base).collect(),
        lost: content::lost_arms(figures),
        head: in_section(drawings, &Section::Head),
        comparisons: figures.comparisons.len(),
        ledger_words: content::ledger_words(figures),
        ledger: Table::new("Spent by each arm, mean a run", content::ledger_table(figures)),
        standings: Table::new(
            "How each of these verdicts stands in the currencies that were not matched",
            content::standings_table(figures),
        ),
        standings_legend: LEGEND,
        cuts: figures.standings.cuts.iter().map(|c| c.sentence()).collect(),
        suites: view.suites().into_iter().map(|s| suite(view, figures, drawings, s)).collect(),
        training: in_section(drawings, &Section::Training),
        cost: in_section(drawings, &Section::Cost),
        samples: samples::chosen(view),
        seeds: view.seeds_note(),
        withheld: view.texts_withheld(),
        plan: match super::sweep::plan(view.input) {
            Some(plan) => plan.to_toml(),
            None => pretty(&view.input.plan)?,
        },
        environment: pretty(&view.input.environment)?,
        figures: for_script(&serde_json::to_string(figures).context("figures as JSON")?),
        style: STYLE,
        script: SCRIPT,
    })
}

/// What a reader wants to know first, from plan and environment; unknown ones are left out.
fn facts(view: &View<'_>) -> Vec<(&'static str, String)> {
    let environment = |key: &str| view.input.environment.get(key).map(short).unwrap_or_default();
    let planned = |path: &[&str]| view.planned(path).map(short).unwrap_or_default();
    let all = [
        ("Budget a run", view.budget_words().unwrap_or_default()),
        ("Seeds", view.seeds_note()),
        ("Model", planned(&["model", "source"])),
        ("Data", planned(&["data", "source"])),
        ("Device", environment("device")),
        ("Version", environment("version")),
        // Twelve digits name a commit; the whole of it stands with the environment below.
        ("Commit", environment("commit").chars().take(12).collect()),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn short(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn suite<'a>(view: &View<'_>, figures: &Figures, drawings: &'a [Drawing], name: String) -> Suite<'a> {
    let arms = content::arm_table(view, figures, &name);
    let note = content::base_note(view, &name).map(|n| format!(". {n}")).unwrap_or_default();
    let caption = format!(
        "Scores on {name}: mean ± standard error over seeds, Δ to base; ↑ higher is better, ↓ lower{note}"
    );
    let mut rows: Vec<_> = figures.comparisons.iter().map(|c| &c.row).filter(|c| c.suite == name).collect();
    // The plan's question first, then the starting checkpoint, then the rest.
    rows.sort_by_key(|c| c.family);
    let beside = beside(view, &name, &rows);
    Suite {
        beside,
        id: file_part(&name),
        arms: Table::new(caption, arms),
        comparisons: comparisons(view, &name, rows.into_iter()),
        charts: in_section(drawings, &Section::Suite(name.clone())),
        name,
    }
}

fn comparisons<'c>(view: &View<'_>, suite: &str, rows: impl Iterator<Item = &'c ComparisonRow>) -> Table {
    let level = view.confidence();
    let interval = format!("{level} interval");
    let head = [
        "metric",
        "arms",
        "difference",
        &interval,
        "p (Holm)",
        "verdict",
        "family",
        "p (equiv.)",
        "detectable",
    ];
    let mut table = vec![head.iter().map(|h| Cell::text(*h)).collect::<Vec<_>>()];
    for c in rows {
        let unit = view.metric(suite, &c.metric).map_or(Unit::Plain, |m| m.unit);
        let name =
            if c.subset == ALL { metric(&c.metric) } else { format!("{} ({})", metric(&c.metric), c.subset) };
        table.push(vec![
            Cell::text(capitalised(&name)),
            Cell::text(format!("{} − {}", c.arm_a, c.arm_b)),
            Cell::number(unit.bound(c.difference), c.difference),
            Cell::number(unit.interval_words(c.low, c.high), c.low),
            Cell::number(p_value(c.p_adjusted), c.p_adjusted),
            Cell::text(verdict_word(c.verdict)),
            Cell::text(match c.family {
                Family::Primary => "primary",
                Family::Base => "base",
                Family::Secondary => "secondary",
            }),
            Cell::number(p_value(view.p_equivalence(c)), view.p_equivalence(c)),
            c.detectable.map_or(Cell::text("n/a"), |d| Cell::number(unit.spread(d), d)),
        ]);
    }
    let caption = format!(
        "Comparisons on {suite}: first arm minus second (shares in percentage points); intervals are not \
         corrected for the number of comparisons, p values are, by Holm within the family; p (equiv.): of the two one-sided \
         tests against ± the margin; detectable: smallest true difference found with probability 0.8"
    );
    Table::new(caption, table)
}

/// What stands beside the verdicts: where the variance of a difference comes from, and tests without a model of seeds.
fn beside(view: &View<'_>, suite: &str, rows: &[&ComparisonRow]) -> Table {
    let head = [
        "metric",
        "arms",
        "seeds",
        "prompts",
        "judge",
        "the rest",
        "p (permutation)",
        "p (McNemar)",
        "two-level bootstrap",
    ];
    let mut table = vec![head.iter().map(|h| Cell::text(*h)).collect::<Vec<_>>()];
    let none = || Cell::text("–");
    let p = |p: Option<f64>| p.map_or_else(none, |p| Cell::number(p_value(p), p));
    for c in rows.iter().filter(|c| c.subset == ALL && c.p_permutation.is_some()) {
        let unit = view.metric(suite, &c.metric).map_or(Unit::Plain, |m| m.unit);
        let [seed, prompt, judge, rest] = content::variance_shares(c);
        let share = |s: Option<f64>| s.map_or_else(none, |s| Cell::number(format!("{:.0} %", 100.0 * s), s));
        let bootstrap = c.bootstrap_low.zip(c.bootstrap_high);
        table.push(vec![
            Cell::text(capitalised(&metric(&c.metric))),
            Cell::text(format!("{} − {}", c.arm_a, c.arm_b)),
            share(seed),
            share(prompt),
            share(judge),
            share(rest),
            p(c.p_permutation),
            p(c.p_mcnemar),
            bootstrap.map_or_else(none, |(low, high)| {
                Cell::number(format!("{} to {}", unit.bound(low), unit.bound(high)), low)
            }),
        ]);
    }
    if table.len() == 1 {
        table.clear();
    }
    let caption = format!(
        "Beside the verdicts on {suite}: shares of the variance of the mean difference that come from seeds, from \
         prompts, from the judge (where one was asked in both orders) and from the rest (sampling, seeds × prompts); p \
         of tests that hold the seeds fixed, so that they speak of these checkpoints only; the studentised two-level \
         bootstrap (from four seeds on, primary metrics)"
    );
    Table::new(caption, table)
}

fn in_section<'a>(drawings: &'a [Drawing], section: &Section) -> Vec<Figure<'a>> {
    let found = drawings.iter().filter(|d| d.section == *section);
    let figure = |d: &'a Drawing| Figure {
        name: &d.name,
        title: &d.title,
        caption: &d.caption,
        svg: &d.svg,
        marks: &d.marks,
    };
    found.map(figure).collect()
}

fn pretty(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value).context("plan or environment as JSON")
}

/// JSON that cannot end the `<script>` element which holds it.
fn for_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
