//! Score by arm, a panel a judged metric: mean, interval, and every seed.

use super::{Chart, Drawing, Section, file_part, key};
use crate::base::error::Result;
use crate::report::content;
use crate::report::format::{Unit, capitalised, metric as in_words};
use crate::report::svg::axis::Scale;
use crate::report::svg::canvas::{Canvas, TextSpec, text_width};
use crate::report::svg::palette::{AXIS, PAPER};
use crate::report::svg::panel::{Frame, LABEL, NAME, Panel, TICK, fitted, heading, wrapped};
use crate::report::view::{ALL, Arm, ArmScore, Metric, View};

pub const CHART: Chart = Chart { name: "scores", draw };

const WIDTH: f64 = 760.0;
const ROW: f64 = 42.0;
/// Arms' names are cut to this width.
const NAMES: f64 = 130.0;
/// Room for the name and the axis of a panel.
const AROUND: f64 = 82.0;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    view.suites().iter().filter_map(|suite| draw_suite(view, suite).transpose()).collect()
}

fn draw_suite(view: &View<'_>, suite: &str) -> Result<Option<Drawing>> {
    let (metrics, flat): (Vec<_>, Vec<_>) = view.judged(suite).into_iter().partition(|m| !is_flat(view, m));
    let arms: Vec<_> = view.arms.iter().filter(|a| scored(view, &metrics, a)).collect();
    if metrics.is_empty() || arms.is_empty() {
        return Ok(None);
    }
    let all: Vec<_> =
        metrics.iter().flat_map(|m| view.arms.iter().filter_map(|a| view.score(m, ALL, &a.name))).collect();
    let title = format!("Scores on {suite}");
    let alike: Vec<_> = flat.iter().map(|m| m.label()).collect();
    let left_out = match alike.as_slice() {
        [] => String::new(),
        alike => format!(" Not drawn, since all arms are alike: {}.", alike.join(", ")),
    };
    let base = content::base_note(view, suite).map(|note| format!(" {note}")).unwrap_or_default();
    let seeds = view.seeds_note();
    let n = key::examples(all.iter());
    let subtitle =
        format!("Mean over {seeds} with 95 % interval; rings are single seeds; {n} examples a seed.");
    let canvas = grid(view, (&title, &subtitle), &metrics, &arms, |m| capitalised(&in_words(&m.name)));
    let caption = format!(
        "{title}: mean over {seeds} by arm, {n} examples a seed; panels of accuracies and win rates have one scale, \
         the others each their own. The 95 % \
         interval joins the spread over seeds (Student's t) and the sampling of prompts (clustered); rings are \
         the seeds. All arms answer the same prompts, so overlapping intervals do not mean \"no difference\": \
         differences are judged in pairs (next chart). Dashed line: even (50 %).{base}{left_out}"
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = format!("scores-{}", file_part(suite));
    Ok(Some(Drawing { name, title, caption, section: Section::Suite(suite.to_owned()), svg, marks }))
}

/// Every run has one value, to a tenth of a point for shares: a picture of it would show nothing.
fn is_flat(view: &View<'_>, metric: &Metric) -> bool {
    let values = || view.arms.iter().filter_map(|a| view.score(metric, ALL, &a.name)).flat_map(|s| s.seeds);
    let (low, high) =
        values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), r| (a.min(r.value), b.max(r.value)));
    let least = if metric.unit == Unit::Share { 0.001 } else { 0.0 };
    high - low <= least
}

/// A panel a metric, three beside each other, each named by `name`; the arms stand at the left of each row.
pub fn grid(
    view: &View<'_>,
    (title, subtitle): (&str, &str),
    metrics: &[Metric],
    arms: &[&Arm],
    name: impl Fn(&Metric) -> String,
) -> Canvas {
    let columns = if metrics.len() == 4 { 2 } else { metrics.len().clamp(1, 3) };
    let rows = metrics.len().div_ceil(columns);
    let names = arms.iter().map(|a| text_width(&a.name, LABEL)).fold(30.0, f64::max).min(NAMES) + 46.0;
    let panel_height = ROW * arms.len() as f64;
    let gap = 26.0;
    let width = (WIDTH - names - 16.0 - gap * (columns - 1) as f64) / columns as f64;
    let titles: Vec<String> = metrics.iter().map(name).collect();
    let lines = titles.iter().map(|t| wrapped(t, width, NAME).len()).max().unwrap_or(1);
    let around = AROUND + 16.0 * (lines - 1) as f64;
    let top =
        68.0 + 16.0 * (wrapped(subtitle, WIDTH - 32.0, LABEL).len() - 1) as f64 + 16.0 * (lines - 1) as f64;
    let mut canvas =
        Canvas::new(WIDTH, top + rows as f64 * (panel_height + around) - 16.0 * (lines - 1) as f64 + 2.0);
    heading(&mut canvas, title, subtitle);
    let even: Vec<&Metric> = metrics.iter().filter(|m| m.even().is_some()).collect();
    for (i, (metric, name)) in metrics.iter().zip(&titles).enumerate() {
        let left = names + (i % columns) as f64 * (width + gap);
        let top = top + 16.0 + (i / columns) as f64 * (panel_height + around);
        let frame = Frame { left, top, right: left + width, bottom: top + panel_height };
        // What is held against one half is told in one unit: those panels share a scale.
        let alike = if metric.even().is_some() { even.as_slice() } else { &[metric] };
        let panel = Panel::new(frame, scale(view, alike, arms), Scale::unit());
        draw_panel(&mut canvas, view, &panel, (metric, name), arms, i % columns == 0);
    }
    canvas
}

pub fn scored(view: &View<'_>, metrics: &[Metric], arm: &Arm) -> bool {
    metrics.iter().any(|m| view.score(m, ALL, &arm.name).is_some())
}

/// Covers these metrics' intervals and seeds, and what is even.
fn scale(view: &View<'_>, metrics: &[&Metric], arms: &[&Arm]) -> Scale {
    let found = metrics.iter().flat_map(|m| arms.iter().filter_map(|a| view.score(m, ALL, &a.name)));
    let ends = found.flat_map(|s| {
        let interval = [s.summary.low, s.summary.high];
        s.seeds.into_iter().map(|r| r.value).chain(interval)
    });
    let x = Scale::over(ends.chain(metrics.iter().filter_map(|m| m.even())));
    if metrics.iter().all(|m| m.unit == Unit::Share) { x.within(0.0, 1.0) } else { x }
}

fn draw_panel(
    canvas: &mut Canvas,
    view: &View<'_>,
    panel: &Panel,
    (metric, name): (&Metric, &str),
    arms: &[&Arm],
    named: bool,
) {
    let frame = panel.frame;
    let found = arms.iter().map(|a| view.score(metric, ALL, &a.name));
    panel.name(canvas, name);
    let better = match metric.direction {
        crate::record::Direction::Lower => "lower is better",
        _ => "higher is better",
    };
    let unit = if metric.unit == Unit::Share { "share" } else { &metric.unit_name };
    let label = if unit.is_empty() { better.to_owned() } else { format!("{unit}, {better}") };
    panel.x_axis(canvas, &label, metric.ticks());
    if let Some(even) = metric.even() {
        let x = panel.x.at(even);
        canvas.dashed(&[(x, frame.top), (x, frame.bottom)], AXIS, 1.2, "3 3");
    }
    for (i, (arm, score)) in arms.iter().zip(found).enumerate() {
        let y = frame.top + (i as f64 + 0.55) * ROW;
        if named {
            let name = fitted(&arm.name, NAMES, LABEL);
            canvas.marker((22.0, y), arm.style.marker, 5.0, arm.style.color);
            canvas.text(&name, (34.0, y), TextSpec::new(LABEL));
        }
        if let Some(score) = score {
            row(canvas, panel, metric, arm, &score, y);
        }
    }
}

fn row(canvas: &mut Canvas, panel: &Panel, metric: &Metric, arm: &Arm, score: &ArmScore<'_>, y: f64) {
    let s = score.summary;
    let value = metric.unit.value(s.mean);
    let (low, high) = (metric.unit.value(s.low), metric.unit.value(s.high));
    let label = format!("{}: {value}, 95 % interval {low} to {high}, {} seeds", arm.name, s.seeds);
    canvas.mark(&label, &score.rows, |c| {
        panel.interval(c, (s.low, s.high), y, arm.style.color);
        c.marker((panel.x.at(s.mean), y), arm.style.marker, 5.5, arm.style.color);
        let half = text_width(&value, TICK) / 2.0;
        let leftmost = panel.frame.left + half;
        let at = panel.x.at(s.mean).clamp(leftmost, (panel.frame.right - half).max(leftmost));
        // The line of even does not go through a number.
        if metric.even().is_some_and(|even| (panel.x.at(even) - at).abs() < half + 3.0) {
            c.rect((at - half - 3.0, y - 20.0), (at + half + 3.0, y - 8.0), PAPER);
        }
        c.text(&value, (at, y - 14.0), TextSpec::new(TICK).centre().halo());
    });
    if score.seeds.len() > 1 {
        for seed in &score.seeds {
            let label = format!("{}, seed {}: {}", arm.name, seed.seed, metric.unit.value(seed.value));
            canvas.mark(&label, &score.rows, |c| key::seed_dot(c, (panel.x.at(seed.value), y + 11.0), arm));
        }
    }
}
