//! The suite's headline score by subset.

use super::{Chart, Drawing, Section, file_part, key};
use crate::base::error::Result;
use crate::report::format::capitalised;
use crate::report::svg::axis::Scale;
use crate::report::svg::canvas::{Canvas, TextSpec, text_width};
use crate::report::svg::palette::{AXIS, GRID, MUTED};
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, fitted, heading};
use crate::report::view::{ALL, Arm, Metric, View, distinct};

pub const CHART: Chart = Chart { name: "subsets", draw };

/// Height an arm takes in a subset's row.
const LANE: f64 = 15.0;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    view.suites().iter().filter_map(|suite| draw_suite(view, suite).transpose()).collect()
}

fn draw_suite(view: &View<'_>, suite: &str) -> Result<Option<Drawing>> {
    let Some(metric) = view.headline_of(suite) else { return Ok(None) };
    let rows = view.input.scores.iter().filter(|s| s.suite == suite && s.metric == metric.name);
    let subsets: Vec<_> = distinct(rows.map(|s| s.subset.as_str())).into_iter().filter(|s| s != ALL).collect();
    let arms: Vec<_> = view.trained().filter(|a| view.score(&metric, ALL, &a.name).is_some()).collect();
    if subsets.len() < 2 || arms.is_empty() {
        return Ok(None);
    }
    let names = subsets.iter().map(|s| text_width(s, LABEL)).fold(60.0, f64::max).min(200.0) + 30.0;
    let row = LANE * arms.len() as f64 + 18.0;
    let mut canvas = Canvas::new(760.0, 90.0 + row * subsets.len() as f64 + 46.0);
    let title = format!("{} by subset of {suite}", capitalised(&metric.label()));
    let seeds = view.seeds_note();
    heading(&mut canvas, &title, &format!("Mean over {seeds} with 95 % interval."));
    key::draw(&mut canvas, 56.0, arms.iter().copied());
    let frame = Frame { left: names, top: 90.0, right: 736.0, bottom: 90.0 + row * subsets.len() as f64 };
    let panel = Panel::new(frame, scale(view, &metric, &subsets, &arms), Scale::unit());
    panel.x_axis(&mut canvas, &metric.label(), metric.ticks());
    if let Some(even) = metric.even() {
        let x = panel.x.at(even);
        canvas.dashed(&[(x, frame.top), (x, frame.bottom)], AXIS, 1.2, "3 3");
    }
    for (i, subset) in subsets.iter().enumerate() {
        let top = frame.top + i as f64 * row;
        canvas.line(&[(16.0, top), (frame.right, top)], GRID, 1.0);
        subset_row(&mut canvas, view, &panel, &metric, subset, &arms, (top, row));
    }
    let caption = format!(
        "{title}: mean over {seeds} with 95 % interval (seed spread and prompt sampling); n under the subset's \
         name is the examples a seed. Subsets are small: a difference inside one is not a verdict."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = format!("subsets-{}", file_part(suite));
    Ok(Some(Drawing { name, title, caption, section: Section::Suite(suite.to_owned()), svg, marks }))
}

fn scale(view: &View<'_>, metric: &Metric, subsets: &[String], arms: &[&Arm]) -> Scale {
    let cells = subsets.iter().flat_map(|s| arms.iter().map(move |a| (s, a)));
    let scores: Vec<_> = cells.filter_map(|(s, a)| view.score(metric, s, &a.name)).collect();
    let x = Scale::over(scores.iter().flat_map(|s| [s.summary.low, s.summary.high]).chain(metric.even()));
    if metric.even().is_some() { x.within(0.0, 1.0) } else { x }
}

fn subset_row(
    canvas: &mut Canvas,
    view: &View<'_>,
    panel: &Panel,
    metric: &Metric,
    subset: &str,
    arms: &[&Arm],
    (top, height): (f64, f64),
) {
    let middle = top + height / 2.0;
    let scores: Vec<_> = arms.iter().map(|a| view.score(metric, subset, &a.name)).collect();
    canvas.text(&fitted(subset, 200.0, LABEL), (16.0, middle - 8.0), TextSpec::new(LABEL));
    let n = key::examples(scores.iter().flatten());
    canvas.text(&n, (16.0, middle + 9.0), TextSpec::new(TICK).color(MUTED));
    for (i, (arm, score)) in arms.iter().zip(&scores).enumerate() {
        let Some(score) = score else { continue };
        let y = top + 9.0 + (i as f64 + 0.5) * LANE;
        let s = score.summary;
        let unit = metric.unit;
        let (value, low, high) = (unit.value(s.mean), unit.value(s.low), unit.value(s.high));
        let label = format!("{} on {subset}: {value} ({low} to {high}), n = {}", arm.name, score.examples);
        canvas.mark(&label, &score.rows, |c| {
            panel.interval(c, (s.low, s.high), y, arm.style.color);
            c.marker((panel.x.at(s.mean), y), arm.style.marker, 5.0, arm.style.color);
        });
    }
}
