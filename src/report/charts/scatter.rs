//! A score against an amount, a point an arm: what cost, Pareto and KL charts share.

use crate::record::RunRow;
use crate::report::figures::MOST_APART;
use crate::report::format::lines;
use crate::report::ledger::apart;
use crate::report::summary::Summary;
use crate::report::svg::axis::Scale;
use crate::report::svg::canvas::{Canvas, TextSpec, text_width};
use crate::report::svg::panel::{LABEL, Panel, TICK, fitted, spread};
use crate::report::view::{ALL, Arm, BASE, Metric, View};

/// Arms' names at the points are cut to this width.
const NAME_WIDTH: f64 = 110.0;
/// Radius of a mean's marker: a mean that another one would cover stands at most this far aside.
const MARKER: f64 = 6.0;
/// What captions say of that.
pub const ASIDE: &str = "A mean that another would cover stands up to half a marker aside; the tick below the axis and \
    the rings have not moved.";

/// An arm's point: the amount over seeds, and the score with its interval.
pub struct Dot<'v> {
    pub arm: &'v Arm,
    pub x: f64,
    /// 95 % interval of the mean amount over seeds, where it is shown.
    pub across: Option<(f64, f64)>,
    pub y: Summary,
    /// (amount, score) of each seed.
    pub seeds: Vec<(f64, f64)>,
    pub rows: String,
}

/// The points of all trained arms; an arm without amount or score has none.
pub fn dots<'v>(
    view: &'v View<'_>,
    metric: &Metric,
    amount: impl Fn(&RunRow) -> Option<f64>,
) -> Vec<Dot<'v>> {
    view.trained().filter_map(|arm| dot(view, metric, arm, &amount)).collect()
}

fn dot<'v>(
    view: &View<'_>,
    metric: &Metric,
    arm: &'v Arm,
    amount: impl Fn(&RunRow) -> Option<f64>,
) -> Option<Dot<'v>> {
    let score = view.score(metric, ALL, &arm.name)?;
    let mut seeds = Vec::new();
    let mut at = Vec::new();
    for (line, run) in view.runs(&arm.name) {
        let scored = score.seeds.iter().find(|s| s.run == run.run);
        if let (Some(x), Some(row)) = (amount(run).filter(|x| x.is_finite()), scored) {
            seeds.push((x, row.value));
            at.push(line);
        }
    }
    if seeds.is_empty() {
        return None;
    }
    let amounts = Summary::of_scores(&seeds.iter().map(|s| s.0).collect::<Vec<_>>(), &[]);
    let across = amounts.standard_error.map(|_| (amounts.low, amounts.high));
    let rows = format!("{} runs.csv:{}", score.rows, lines(&at));
    Some(Dot { arm, x: amounts.mean, across, y: score.summary, seeds, rows })
}

/// Whether several arms all stand at one amount, as they do in the matched currency: no picture says more of it.
pub fn alike(dots: &[Dot<'_>]) -> bool {
    dots.len() > 1
        && dots.iter().all(|d| d.x > 0.0)
        && apart(dots.iter().map(|d| d.x)).is_some_and(|a| a <= MOST_APART)
}

/// [`points`], with the arm's name beside each.
pub fn draw(
    canvas: &mut Canvas,
    panel: &Panel,
    dots: &[Dot<'_>],
    metric: &Metric,
    amount: impl Fn(f64) -> String,
) {
    let places = points(canvas, panel, dots, metric, amount);
    names(canvas, panel, dots, &places);
}

/// Draws the points: seeds as rings at their amounts, mean with its intervals. Returns where the means stand: of those
/// closer than a marker's width some stand aside, by half of it at most.
pub fn points(
    canvas: &mut Canvas,
    panel: &Panel,
    dots: &[Dot<'_>],
    metric: &Metric,
    amount: impl Fn(f64) -> String,
) -> Vec<f64> {
    let places = side_by_side(panel, dots);
    for dot in dots {
        for (x, y) in dot.seeds.iter().filter(|_| dot.seeds.len() > 1) {
            let label = format!("{}, one seed: {} at {}", dot.arm.name, metric.unit.value(*y), amount(*x));
            canvas.mark(&label, &dot.rows, |c| super::key::seed_dot(c, panel.at(*x, *y), dot.arm));
        }
    }
    for (dot, px) in dots.iter().zip(&places) {
        let value = metric.unit.value(dot.y.mean);
        let (low, high) = (metric.unit.value(dot.y.low), metric.unit.value(dot.y.high));
        let level = dot.across.filter(|ends| width(panel, *ends) > 2.0 * MARKER);
        let across = level.map(|(a, b)| format!(" ({} to {})", amount(a), amount(b))).unwrap_or_default();
        let label = format!("{}: {value} ({low} to {high}) at {}{across}", dot.arm.name, amount(dot.x));
        canvas.mark(&label, &dot.rows, |c| {
            // A mean that was moved aside is still read on the axis at its true amount.
            let (at, bottom) = (panel.x.at(dot.x), panel.frame.bottom);
            c.line(&[(at, bottom), (at, bottom + 5.0)], dot.arm.style.color, 2.0);
            panel.interval_up(c, (dot.y.low, dot.y.high), *px, dot.arm.style.color);
            if let Some(ends) = level {
                panel.interval(c, ends, panel.y.at(dot.y.mean), dot.arm.style.color);
            }
            c.marker((*px, panel.y.at(dot.y.mean)), dot.arm.style.marker, MARKER, dot.arm.style.color);
        });
    }
    places
}

/// Width of an interval of amounts in px; within a marker it is not seen.
fn width(panel: &Panel, (low, high): (f64, f64)) -> f64 {
    panel.x.at(high) - panel.x.at(low)
}

/// A rectangle in px: centre and half of its sides.
#[derive(Clone, Copy)]
struct Patch {
    x: f64,
    y: f64,
    half: (f64, f64),
}

impl Patch {
    fn covers(&self, other: &Patch) -> bool {
        (self.x - other.x).abs() < self.half.0 + other.half.0
            && (self.y - other.y).abs() < self.half.1 + other.half.1
    }
}

/// The arms' names: above the interval, left of the marker, right of it, below, beside it between the intervals; the first
/// place that is free of intervals, markers, rings and other names, else above and higher.
fn names(canvas: &mut Canvas, panel: &Panel, dots: &[Dot<'_>], places: &[f64]) {
    let interval = |(dot, px): (&Dot<'_>, &f64)| {
        let (high, low) = (panel.y.at(dot.y.high), panel.y.at(dot.y.low));
        Patch { x: *px, y: (high + low) / 2.0, half: (5.0, (low - high) / 2.0 + 1.0) }
    };
    let marker = |(dot, px): (&Dot<'_>, &f64)| Patch { x: *px, y: panel.y.at(dot.y.mean), half: (8.0, 7.0) };
    let across = |dot: &Dot<'_>| {
        let (a, b) = dot.across.map(|(a, b)| (panel.x.at(a), panel.x.at(b)))?;
        Some(Patch { x: (a + b) / 2.0, y: panel.y.at(dot.y.mean), half: ((b - a) / 2.0 + 1.0, 5.0) })
    };
    let ring = |(x, y): &(f64, f64)| {
        let (x, y) = panel.at(*x, *y);
        Patch { x, y, half: (3.0, 3.0) }
    };
    let drawn = || dots.iter().zip(places);
    let mut taken: Vec<Patch> = drawn().map(interval).chain(drawn().map(marker)).collect();
    taken.extend(dots.iter().filter_map(across));
    taken.extend(dots.iter().filter(|d| d.seeds.len() > 1).flat_map(|d| d.seeds.iter().map(ring)));
    for (dot, px) in dots.iter().zip(places) {
        let name = fitted(&dot.arm.name, NAME_WIDTH, LABEL);
        let half = (text_width(&name, LABEL) / 2.0 + 2.0, 6.5);
        let frame = panel.frame;
        let inside = |x: f64| x.clamp(frame.left + half.0, (frame.right - half.0).max(frame.left + half.0));
        let at = |x: f64, y: f64| Patch { x: inside(x), y, half };
        let (middle, beside) = (panel.y.at(dot.y.mean), half.0 + 10.0);
        let mut place = at(*px, panel.y.at(dot.y.high) - 10.0);
        let below = at(*px, (panel.y.at(dot.y.low) + 11.0).min(frame.bottom - 8.0));
        let corner = |side: f64, up: f64| at(px + side * beside, middle + 13.0 * up);
        let corners = [corner(1.0, -1.0), corner(-1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
        let wished =
            [place, at(px - beside, middle), at(px + beside, middle), below].into_iter().chain(corners);
        if let Some(free) = wished.into_iter().find(|b: &Patch| !taken.iter().any(|t| t.covers(b))) {
            place = free;
        }
        // Never into the heading: where there is no more room, the hover values name the points.
        while place.y > frame.top - 20.0 && taken.iter().any(|t| t.covers(&place)) {
            place.y -= 1.0;
        }
        canvas.text(&name, (place.x, place.y), TextSpec::new(LABEL).centre().halo());
        taken.push(place);
    }
}

fn side_by_side(panel: &Panel, dots: &[Dot<'_>]) -> Vec<f64> {
    // Whole pixels: amounts that are the same but for rounding stand in the order of the plan.
    let wanted: Vec<_> = dots.iter().map(|d| panel.x.at(d.x).round()).collect();
    let apart = spread(&wanted, 11.0, panel.frame.left, panel.frame.right);
    apart
        .iter()
        .zip(dots)
        .map(|(px, d)| px.clamp(panel.x.at(d.x) - MARKER, panel.x.at(d.x) + MARKER))
        .collect()
}

/// The starting checkpoint's score as a dashed line across the panel.
pub fn base_line(canvas: &mut Canvas, panel: &Panel, view: &View<'_>, metric: &Metric) {
    let (Some(score), Some(arm)) = (view.score(metric, ALL, BASE), view.arm(BASE)) else { return };
    let y = panel.y.at(score.summary.mean);
    let label = format!("base: {}", metric.unit.value(score.summary.mean));
    canvas.mark(&label, &score.rows, |c| {
        c.dashed(&[(panel.frame.left, y), (panel.frame.right, y)], arm.style.color, 1.4, "4 3");
        c.text("base", (panel.frame.left + 6.0, y - 9.0), TextSpec::new(TICK).halo());
    });
}

/// What a caption says of the starting checkpoint.
pub fn base_words(view: &View<'_>, metric: &Metric) -> &'static str {
    match (view.score(metric, ALL, BASE), metric.name.as_str()) {
        (Some(_), _) => " Dashed line: the starting checkpoint.",
        (None, "win_rate_base") => " The starting checkpoint stands at 50 % by definition.",
        (None, _) if metric.even().is_some() && view.even_base(metric) => {
            " The starting checkpoint stands at 50 % by definition."
        }
        (None, _) => "",
    }
}

/// The vertical scale of a panel of these points, with room above them for names.
pub fn heights(view: &View<'_>, metric: &Metric, dots: &[Dot<'_>]) -> Scale {
    let base = view.score(metric, ALL, BASE).map(|s| s.summary.mean);
    let ends = dots.iter().flat_map(|d| d.seeds.iter().map(|s| s.1).chain([d.y.low, d.y.high]));
    let scale = Scale::over(ends.chain(base));
    Scale { high: scale.high + 0.06 * (scale.high - scale.low), ..scale }
}
