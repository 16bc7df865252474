//! The first picture: the plan's primary metrics by arm with intervals; where no suite measures one, the metric
//! that stands for each suite.

use super::{Chart, Drawing, Section, key, scores};
use crate::base::error::Result;
use crate::report::content;
use crate::report::format::{capitalised, metric as in_words};
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "headline", draw };

/// More would be no headline.
const PANELS: usize = 6;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let primary = view.primary();
    let stand_ins = || view.suites().iter().filter_map(|s| view.headline_of(s)).collect();
    let all = if primary.is_empty() { stand_ins() } else { primary };
    let metrics: Vec<Metric> = all.iter().take(PANELS).cloned().collect();
    let arms: Vec<_> = view.arms.iter().filter(|a| scores::scored(view, &metrics, a)).collect();
    if metrics.is_empty() || arms.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = view.trained().map(|a| a.name.as_str()).collect();
    let (names, seeds) = (names.join(", "), view.seeds_note());
    let budget = view.budget_words().map(|b| format!(", {b} a run")).unwrap_or_default();
    let title = match names.chars().count() {
        0..=48 => format!("{}: {names}", view.name()),
        _ => format!("{}: {} arms", view.name(), view.trained().count()),
    };
    let found: Vec<_> =
        metrics.iter().flat_map(|m| arms.iter().filter_map(|a| view.score(m, ALL, &a.name))).collect();
    let n = key::examples(found.iter());
    let subtitle =
        format!("Held-out scores{budget}: mean over {seeds} with 95 % interval; rings are single seeds.");
    let of = |m: &Metric| format!("{} · {}", capitalised(&in_words(&m.name)), m.suite);
    let mut canvas = scores::grid(view, (&title, &subtitle), &metrics, &arms, of);
    canvas.says(&content::verdicts_in_words(
        view,
        &content::headline_rows(view, view.input.comparisons.iter()),
    ));
    let left = all.len() - metrics.len();
    let more =
        if left > 0 { format!(" {left} further metrics stand with their suites.") } else { String::new() };
    let caption = format!(
        "{} by arm: mean over {seeds}{budget}, {n} examples a seed. The 95 % interval joins \
         the spread over seeds (Student's t) and the sampling of prompts (clustered). All arms answer the same \
         prompts, so overlapping intervals do not mean \"no difference\": the verdicts come from paired \
         differences. Dashed line: even (50 %).{more}",
        drawn(view, &metrics)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "headline".to_owned(), title, caption, section: Section::Head, svg, marks }])
}

/// What the panels are.
fn drawn(view: &View<'_>, metrics: &[Metric]) -> String {
    if !view.asks() {
        return "The metric that stands for each suite".to_owned();
    }
    if metrics.iter().any(|m| view.is_primary(&m.name)) {
        return "The plan's primary metrics".to_owned();
    }
    let named: Vec<String> = metrics.iter().map(|m| format!("{} of {}", m.label(), m.suite)).collect();
    format!("None of the plan's primary metrics is measured; {}", named.join(", "))
}
