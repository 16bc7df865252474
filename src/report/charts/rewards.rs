//! Distribution of the implicit reward of chosen and rejected completions, a panel an arm.

use super::{Chart, Drawing, Section, file_part};
use crate::base::error::Result;
use crate::record::ExampleRow;
use crate::report::format::plain;
use crate::report::summary::quantile;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, TextSpec, faded};
use crate::report::svg::palette::{AXIS, GRID, INK, MUTED};
use crate::report::svg::panel::{Frame, Panel, TICK, heading};
use crate::report::view::{Arm, View};

pub const CHART: Chart = Chart { name: "rewards", draw };

const BINS: usize = 48;
const PANEL: f64 = 96.0;
const NAMES: [(&str, &str); 2] = [("reward_chosen", "reward_rejected"), ("chosen_reward", "rejected_reward")];

/// What is drawn of an arm: values of chosen and of rejected completions, or of their margin alone.
struct Spread<'v> {
    arm: &'v Arm,
    chosen: Vec<f64>,
    /// Empty: `chosen` holds margins.
    rejected: Vec<f64>,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    view.suites().iter().filter_map(|suite| draw_suite(view, suite).transpose()).collect()
}

fn draw_suite(view: &View<'_>, suite: &str) -> Result<Option<Drawing>> {
    let spreads: Vec<_> = view.trained().filter_map(|arm| spread_of(view, suite, arm)).collect();
    if spreads.is_empty() {
        return Ok(None);
    }
    let margins = spreads.iter().all(|s| s.rejected.is_empty());
    let what =
        if margins { "Reward margin of pairs" } else { "Implicit reward of chosen and rejected completions" };
    let title = format!("{what} on {suite}");
    let key = if margins {
        "Right of 0: chosen is rewarded more"
    } else {
        "Filled: chosen; dashed outline: rejected"
    };
    let mut canvas = Canvas::new(760.0, 78.0 + (PANEL + 14.0) * spreads.len() as f64 + 42.0);
    heading(
        &mut canvas,
        &title,
        &format!(
            "{key}; height: share a bin; ticks mark the medians (in figures at the left); seeds pooled."
        ),
    );
    let x = scale(&spreads);
    for (i, spread) in spreads.iter().enumerate() {
        let top = 74.0 + i as f64 * (PANEL + 14.0);
        let frame = Frame { left: 122.0, top, right: 736.0, bottom: top + PANEL };
        panel(&mut canvas, suite, spread, frame, x, i + 1 == spreads.len());
    }
    let n = spreads.iter().map(|s| s.chosen.len()).max().unwrap_or(0);
    let caption = format!(
        "{title}, 0.1 · log π/π_ref summed over the completion (0.1 for every arm, whatever β it trained with): share of examples a bin, n = {n} an arm (examples \
         × seeds, pooled). {key}; ticks mark the medians. The outermost bins hold what lies beyond the 0.5 % \
         and 99.5 % quantiles."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = format!("rewards-{}", file_part(suite));
    Ok(Some(Drawing { name, title, caption, section: Section::Suite(suite.to_owned()), svg, marks }))
}

fn spread_of<'v>(view: &View<'_>, suite: &str, arm: &'v Arm) -> Option<Spread<'v>> {
    let of = |metric: &str| -> Vec<f64> {
        let wanted = |e: &&ExampleRow| {
            e.suite == suite && e.arm == arm.name && e.metric == metric && view.counts(&e.run)
        };
        let rows = view.input.examples.iter().filter(wanted);
        rows.map(|e| e.value).filter(|v| v.is_finite()).collect()
    };
    let pairs = NAMES.iter().map(|(c, r)| (of(c), of(r))).find(|(c, r)| !c.is_empty() && !r.is_empty());
    let (chosen, rejected) = pairs.unwrap_or_else(|| (of("margin"), Vec::new()));
    (!chosen.is_empty()).then_some(Spread { arm, chosen, rejected })
}

fn scale(spreads: &[Spread<'_>]) -> Scale {
    let mut all: Vec<f64> =
        spreads.iter().flat_map(|s| s.chosen.iter().chain(&s.rejected).copied()).collect();
    all.sort_by(f64::total_cmp);
    Scale::over([quantile(&all, 0.005), quantile(&all, 0.995), 0.0])
}

fn panel(canvas: &mut Canvas, suite: &str, spread: &Spread<'_>, frame: Frame, x: Scale, last: bool) {
    let chosen = histogram(&spread.chosen, x);
    let rejected = histogram(&spread.rejected, x);
    let most = chosen.iter().chain(&rejected).copied().fold(0.0, f64::max);
    let y = Scale { high: 1.08 * most, ..Scale::unit() };
    let panel = Panel::new(frame, x, y);
    for (value, _) in panel.x.ticks(9, Ticks::Plain) {
        let x = panel.x.at(value);
        canvas.line(&[(x, frame.top), (x, frame.bottom)], GRID, 1.0);
    }
    if last {
        panel.x_axis(canvas, "implicit reward, 0.1 · log (policy / reference)", Ticks::Plain);
    }
    let zero = panel.x.at(0.0);
    canvas.line(&[(zero, frame.top), (zero, frame.bottom)], AXIS, 1.2);
    canvas.line(&[(frame.left, frame.bottom), (frame.right, frame.bottom)], AXIS, 1.0);
    canvas.text(&spread.arm.name, (16.0, frame.top + 34.0), TextSpec::new(14.0));
    shape(canvas, &panel, suite, spread, (&spread.chosen, &chosen), true);
    if !spread.rejected.is_empty() {
        shape(canvas, &panel, suite, spread, (&spread.rejected, &rejected), false);
    }
}

fn shape(
    canvas: &mut Canvas,
    panel: &Panel,
    suite: &str,
    spread: &Spread<'_>,
    data: (&[f64], &[f64]),
    chosen: bool,
) {
    let (values, heights) = data;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = quantile(&sorted, 0.5);
    let style = spread.arm.style;
    let outline = steps(panel, heights);
    let what = match (chosen, spread.rejected.is_empty()) {
        (true, true) => "margin",
        (true, false) => "chosen",
        _ => "rejected",
    };
    let rows = format!("examples.csv[suite={suite},arm={}]", spread.arm.name);
    let label = format!("{}, {what}: median {}, n = {}", spread.arm.name, plain(median), values.len());
    canvas.mark(&label, &rows, |c| {
        if chosen {
            c.polygon(&outline, faded(style.color, 0.35));
            c.line(&outline, style.color, 1.4);
        } else {
            c.dashed(&outline, INK, 1.5, "4 3");
        }
        let (x, bottom) = (panel.x.at(median), panel.frame.bottom);
        let color = if chosen { style.color } else { INK };
        c.line(&[(x, bottom), (x, bottom - 12.0)], color, 3.0);
        let at = (16.0, panel.frame.top + if chosen { 54.0 } else { 70.0 });
        c.text(&format!("{what} {}", plain(median)), at, TextSpec::new(TICK).color(MUTED));
    });
}

/// Shares of the values a bin; what lies outside the scale counts to the outermost bins.
fn histogram(values: &[f64], x: Scale) -> Vec<f64> {
    let mut bins = vec![0.0; BINS];
    for value in values {
        let at = (value - x.low) / (x.high - x.low) * BINS as f64;
        bins[(at.max(0.0) as usize).min(BINS - 1)] += 1.0 / values.len() as f64;
    }
    bins
}

/// The outline of a histogram from its first to its last bin that holds something.
fn steps(panel: &Panel, heights: &[f64]) -> Vec<Point> {
    let width = (panel.frame.right - panel.frame.left) / heights.len() as f64;
    let first = heights.iter().position(|h| *h > 0.0).unwrap_or(0);
    let last = heights.iter().rposition(|h| *h > 0.0).unwrap_or(0);
    let edge = |i: usize| panel.frame.left + i as f64 * width;
    let mut path = vec![(edge(first), panel.frame.bottom)];
    for (i, height) in heights.iter().enumerate().take(last + 1).skip(first) {
        let y = panel.y.at(*height);
        path.extend([(edge(i), y), (edge(i + 1), y)]);
    }
    path.push((edge(last + 1), panel.frame.bottom));
    path
}
