//! A metric along a swept key: a line an arm, its interval at every value, arms that are not swept as bands.

use super::{Chart, Drawing, Section, file_part};
use crate::base::error::Result;
use crate::report::format::capitalised;
use crate::report::summary::Summary;
use crate::report::svg::axis::Scale;
use crate::report::svg::canvas::{Canvas, Point, TextSpec, faded};
use crate::report::svg::palette::{AXIS, ArmStyle, MUTED};
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, heading, spread};
use crate::report::sweep::{self, Line, Swept};
use crate::report::view::{ALL, ArmScore, BASE, Metric, View};

pub const CHART: Chart = Chart { name: "sweep", draw };

/// Room at the right for the names of the lines.
const NAMES: f64 = 150.0;
/// Lines are set this far apart at each value, so that intervals do not cover each other.
const APART: f64 = 9.0;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(plan) = sweep::plan(view.input).filter(|p| p.swept()) else { return Ok(Vec::new()) };
    let claims = sweep::found(view.input);
    let mut drawings = Vec::new();
    for suite in view.suites() {
        let judged = view.judged(&suite).into_iter();
        let metrics: Vec<_> = judged.filter(|m| plan.verdict.primary.contains(&m.name)).collect();
        for (metric, swept) in
            metrics.iter().flat_map(|m| sweep::axes(&plan).into_iter().map(move |a| (m, a)))
        {
            let words: Vec<_> =
                claims.iter().filter(|c| c.suite == suite && c.metric == metric.name).collect();
            let words = words.iter().map(|c| format!("{}.", c.words)).collect::<Vec<_>>().join(" ");
            drawings.extend(draw_one(view, metric, &swept, &words)?);
        }
    }
    Ok(drawings)
}

/// A line with its scores, in the order of its values.
struct Series<'v> {
    line: &'v Line,
    style: ArmStyle,
    points: Vec<(f64, &'v str, ArmScore<'v>)>,
}

fn draw_one(view: &View<'_>, metric: &Metric, swept: &Swept, words: &str) -> Result<Option<Drawing>> {
    let values = swept.values();
    let place = places(&values);
    let series: Vec<Series<'_>> = swept
        .lines
        .iter()
        .enumerate()
        .map(|(i, line)| {
            let point = |(value, arm): &'_ (String, String)| {
                let at = values.iter().position(|v| v == value)?;
                Some((place.0[at], values[at].as_str(), view.score(metric, ALL, arm)?))
            };
            let mut points: Vec<_> = line.points.iter().filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { line, style: ArmStyle::nth(i), points }
        })
        .filter(|s| !s.points.is_empty())
        .collect();
    if series.iter().all(|s| s.points.len() < 2) {
        return Ok(None);
    }
    let mut canvas = Canvas::new(760.0, 440.0);
    let title = format!("{} by {}", capitalised(&metric.label()), swept.title());
    let seeds = view.seeds_note();
    let top = heading(
        &mut canvas,
        &title,
        &format!(
            "Suite {}; mean over {seeds} with 95 % interval; dashed grey: {}.",
            metric.suite,
            level_words(view, metric)
        ),
    );
    let panel = Panel::new(
        Frame { left: 74.0, top: top + 14.0, right: 760.0 - NAMES, bottom: 386.0 },
        Scale { log: place.1, ..width(&place.0, place.1) },
        heights(view, metric, swept, &series),
    );
    x_axis(&mut canvas, &panel, swept, &values, &place.0);
    panel.y_axis(&mut canvas, &metric.label(), metric.ticks());
    base_line(&mut canvas, &panel, view, metric);
    let mut ends = still(&mut canvas, &panel, view, metric, swept, series.len());
    for (i, one) in series.iter().enumerate() {
        let shift = APART * (i as f64 - 0.5 * (series.len() as f64 - 1.0));
        ends.extend(line(&mut canvas, &panel, metric, swept, one, shift));
    }
    names(&mut canvas, &panel, &ends);
    let caption = format!(
        "{title}, on {}: mean over {seeds} with 95 % interval (seed spread and prompt sampling; n = {} examples a seed). \
         Lines are set a little apart at each value. {words}",
        metric.suite,
        series.iter().flat_map(|s| s.points.iter().map(|p| p.2.examples)).min().unwrap_or(0)
    );
    let (svg, marks) = canvas.finish(&title, caption.trim())?;
    let name = format!("sweep-{}-{}-{}", file_part(&metric.suite), metric.name, file_part(&swept.key));
    let section = Section::Suite(metric.suite.clone());
    Ok(Some(Drawing { name, title, caption: caption.trim().to_owned(), section, svg, marks }))
}

/// Where the values stand, and whether on a logarithmic scale: numbers at their value, words at 0, 1, 2, …
fn places(values: &[String]) -> (Vec<f64>, bool) {
    let numbers: Option<Vec<f64>> = values.iter().map(|v| v.parse().ok()).collect();
    let Some(numbers) = numbers else { return ((0..values.len()).map(|i| i as f64).collect(), false) };
    let log = Scale::over_amounts(&numbers).log;
    (numbers, log)
}

fn width(places: &[f64], log: bool) -> Scale {
    let (least, most) =
        (places.iter().copied().fold(f64::INFINITY, f64::min), places.iter().copied().fold(0.0, f64::max));
    if log {
        let room = (most / least).powf(0.06);
        return Scale { low: least / room, high: most * room, log, from: 0.0, to: 1.0 };
    }
    let room = if most > least { 0.07 * (most - least) } else { 0.5 };
    Scale { low: least - room, high: most + room, log, from: 0.0, to: 1.0 }
}

fn heights(view: &View<'_>, metric: &Metric, swept: &Swept, series: &[Series<'_>]) -> Scale {
    let still = swept.still.iter().filter_map(|arm| view.score(metric, ALL, arm));
    let base = level(view, metric);
    let ends = |s: Summary| [s.low, s.high];
    let lines = series.iter().flat_map(|s| s.points.iter().flat_map(|p| ends(p.2.summary)));
    Scale::over(lines.chain(still.flat_map(|s| ends(s.summary))).chain(base))
}

/// A tick at each swept value; where two would touch, the later one has no label.
fn x_axis(canvas: &mut Canvas, panel: &Panel, swept: &Swept, values: &[String], places: &[f64]) {
    let Frame { left, right, bottom, .. } = panel.frame;
    canvas.line(&[(left, bottom), (right, bottom)], AXIS, 1.0);
    let label = TextSpec::new(LABEL).color(MUTED).centre();
    canvas.text(&swept.title(), ((left + right) / 2.0, bottom + 29.0), label);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut free_from = f64::NEG_INFINITY;
    for i in order {
        let text = written(swept, &values[i]);
        let (x, half) = (panel.x.at(places[i]), 3.4 * text.chars().count() as f64);
        canvas.line(&[(x, panel.frame.bottom), (x, panel.frame.bottom + 4.0)], AXIS, 1.0);
        if x - half > free_from {
            canvas.text(&text, (x, panel.frame.bottom + 12.0), TextSpec::new(TICK).color(MUTED).centre());
            free_from = x + half + 4.0;
        }
    }
}

fn written(swept: &Swept, value: &str) -> String {
    match value.parse::<f64>() {
        Ok(share) if swept.percent() => format!("{} %", trimmed(100.0 * share)),
        Ok(number) if number >= 10_000.0 => crate::report::format::si(number),
        _ => value.to_owned(),
    }
}

/// As few digits as it takes.
fn trimmed(x: f64) -> String {
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Where the starting checkpoint stands: its own score, or, of win rates against it, one half.
pub(super) fn level(view: &View<'_>, metric: &Metric) -> Option<f64> {
    view.score(metric, ALL, BASE).map(|s| s.summary.mean).or_else(|| metric.even())
}

/// What the line at [`level`] is.
pub(super) fn level_words(view: &View<'_>, metric: &Metric) -> &'static str {
    match view.score(metric, ALL, BASE) {
        None if metric.even().is_some() => "even (50 %)",
        _ => "the starting checkpoint",
    }
}

/// A dashed line across the panel at [`level`].
pub(super) fn base_line(canvas: &mut Canvas, panel: &Panel, view: &View<'_>, metric: &Metric) {
    if view.score(metric, ALL, BASE).is_some() {
        return super::scatter::base_line(canvas, panel, view, metric);
    }
    let (Some(even), Some(base)) = (metric.even(), view.arm(BASE)) else { return };
    let y = panel.y.at(even);
    canvas.dashed(&[(panel.frame.left, y), (panel.frame.right, y)], base.style.color, 1.4, "4 3");
}

/// Arms that are not swept: their mean across the panel, in a band of its interval. Gives the ends of the lines.
fn still<'v>(
    canvas: &mut Canvas,
    panel: &Panel,
    view: &View<'_>,
    metric: &Metric,
    swept: &'v Swept,
    lines: usize,
) -> Vec<(Point, &'v str, ArmStyle)> {
    let mut ends = vec![];
    let Frame { left, right, .. } = panel.frame;
    for (i, arm) in swept.still.iter().enumerate() {
        let Some(score) = view.score(metric, ALL, arm) else { continue };
        let (style, s) = (ArmStyle::nth(lines + i), score.summary);
        let (low, y, high) = (panel.y.at(s.low), panel.y.at(s.mean), panel.y.at(s.high));
        let said = |v: f64| metric.unit.value(v);
        let label = format!("{arm}: {} ({} to {}), not swept", said(s.mean), said(s.low), said(s.high));
        canvas.mark(&label, &score.rows, |c| {
            c.rect((left, high), (right, low), faded(style.color, 0.10));
            c.dashed(&[(left, y), (right, y)], style.color, 1.8, "9 4");
        });
        ends.push(((right, y), arm.as_str(), style));
    }
    ends
}

fn line<'v>(
    canvas: &mut Canvas,
    panel: &Panel,
    metric: &Metric,
    swept: &Swept,
    one: &Series<'v>,
    shift: f64,
) -> Option<(Point, &'v str, ArmStyle)> {
    let style = one.style;
    let at = |x: f64, y: f64| (panel.x.at(x) + shift, panel.y.at(y));
    let path: Vec<Point> = one.points.iter().map(|p| at(p.0, p.2.summary.mean)).collect();
    canvas.dashed(&path, style.color, 2.0, style.dash);
    for (x, value, score) in &one.points {
        let s = score.summary;
        let said = |v: f64| metric.unit.value(v);
        let label = format!(
            "{} at {}: {} ({} to {})",
            one.line.label,
            written(swept, value),
            said(s.mean),
            said(s.low),
            said(s.high)
        );
        canvas.mark(&label, &score.rows, |c| {
            panel.interval_up(c, (s.low, s.high), panel.x.at(*x) + shift, style.color);
            c.marker(at(*x, s.mean), style.marker, 5.5, style.color);
        });
    }
    path.last().map(|end| (*end, one.line.label.as_str(), style))
}

/// The lines' names beside their ends, clear of each other, each with its marker.
fn names(canvas: &mut Canvas, panel: &Panel, ends: &[(Point, &str, ArmStyle)]) {
    let wanted: Vec<f64> = ends.iter().map(|e| e.0.1).collect();
    let heights = spread(&wanted, 17.0, panel.frame.top, panel.frame.bottom);
    for ((end, name, style), y) in ends.iter().zip(heights) {
        let x = panel.frame.right + 16.0;
        canvas.line(&[(end.0 + 7.0, end.1), (x - 4.0, y)], AXIS, 0.8);
        canvas.marker((x + 4.0, y), style.marker, 4.0, style.color);
        let name = crate::report::svg::panel::fitted(name, NAMES - 36.0, LABEL);
        canvas.text(&name, (x + 14.0, y), TextSpec::new(LABEL).halo());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_their_value_and_words_in_a_row() {
        let of = |values: &[&str]| places(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["0.01", "0.1", "1"]), (vec![0.01, 0.1, 1.0], true));
        assert_eq!(of(&["0", "0.2", "0.4"]), (vec![0.0, 0.2, 0.4], false));
        assert_eq!(of(&["auto", "counts"]), (vec![0.0, 1.0], false));
    }

    #[test]
    fn shares_are_written_as_per_cent() {
        let swept = |key: &str| Swept { key: key.to_owned(), lines: vec![], still: vec![] };
        assert_eq!(written(&swept("data.feedback.fraction"), "0.01"), "1 %");
        assert_eq!(written(&swept("data.feedback.flip"), "0.125"), "12.5 %");
        assert_eq!(written(&swept("budget.tokens"), "50000"), "50 k");
        assert_eq!(written(&swept("learning_rate"), "1e-5"), "1e-5");
    }
}
