//! What KTO's reference point did: z0 before the clamp, how often it was clamped, how flat the loss was.

use super::{Chart, Drawing, Section, file_part, key};
use crate::base::error::Result;
use crate::plan::{Plan, Point};
use crate::record::StepRow;
use crate::report::format::{plain, si};
use crate::report::summary::mean;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point as Place};
use crate::report::svg::palette::ArmStyle;
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::sweep;
use crate::report::view::{Arm, View, distinct};

pub const CHART: Chart = Chart { name: "kto", draw };

/// Steps are averaged over this many equal parts of the budget.
const BINS: usize = 24;
/// More arms than this are not told apart in one panel: a sweep's arms then have a chart for each arm of the plan, with
/// its points of the first key, the other keys where they stand first.
const MOST: usize = 8;

struct Quantity {
    name: &'static str,
    axis: &'static str,
    ticks: Ticks,
    value: fn(&StepRow) -> Option<f64>,
}

const QUANTITIES: [Quantity; 4] = [
    Quantity { name: "z0 before the clamp", axis: "nats", ticks: Ticks::Plain, value: |s| s.kl_unclamped },
    Quantity {
        name: "Steps whose z0 was clamped to 0",
        axis: "share of steps",
        ticks: Ticks::Percent,
        value: |s| s.kl_unclamped.map(|raw| f64::from(u8::from(raw < 0.0))),
    },
    Quantity {
        name: "Saturation of the loss",
        axis: "0 steepest, 1 flat",
        ticks: Ticks::Plain,
        value: |s| s.saturation,
    },
    Quantity {
        name: "Desirable completions in a step",
        axis: "share of completions",
        ticks: Ticks::Percent,
        value: |s| {
            let all = s.desirable + s.undesirable;
            s.kl_unclamped.filter(|_| all > 0).map(|_| s.desirable as f64 / all as f64)
        },
    },
];

struct Curve<'v> {
    arm: &'v Arm,
    bins: Vec<(f64, f64)>,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let shown = || view.input.steps.iter().filter(|s| view.counts(&s.run));
    let has = |arm: &&Arm| shown().any(|s| s.arm == arm.name && s.kl_unclamped.is_some());
    let arms: Vec<&Arm> = view.trained().filter(has).collect();
    let tokens = view.input.steps.iter().map(|s| s.total_policy_tokens).max().unwrap_or(0) as f64;
    if arms.is_empty() || tokens == 0.0 {
        return Ok(Vec::new());
    }
    let title = "KTO's reference point and loss";
    if arms.len() <= MOST {
        return Ok(vec![draw_one(view, &arms, tokens, "kto", title.to_owned())?]);
    }
    let Some(plan) = sweep::plan(view.input) else { return Ok(Vec::new()) };
    let of_plan = distinct(arms.iter().filter_map(|arm| point(&plan, arm)).map(|p| p.arm.as_str()));
    let of_one = |name: &String| {
        let line = line(&plan, &arms, name);
        draw_one(
            view,
            &line.iter().collect::<Vec<_>>(),
            tokens,
            &format!("kto-{}", file_part(name)),
            format!("{title}: {name}"),
        )
    };
    of_plan.iter().map(of_one).collect()
}

/// The points of an arm of the plan that differ from its first in the first key alone, in styles of their own: those of
/// the report do not tell so many apart.
fn line(plan: &Plan, arms: &[&Arm], name: &str) -> Vec<Arm> {
    let points = arms.iter().filter_map(|arm| Some((arm, point(plan, arm)?))).filter(|(_, p)| p.arm == name);
    let points: Vec<_> = points.collect();
    let rest = |p: &Point| p.axes[1..].to_vec();
    let along = points.iter().filter(|(_, p)| rest(p) == rest(points[0].1)).take(MOST);
    along.enumerate().map(|(i, (arm, _))| Arm { name: arm.name.clone(), style: ArmStyle::nth(i) }).collect()
}

fn point<'p>(plan: &'p Plan, arm: &Arm) -> Option<&'p Point> {
    plan.arms.iter().find(|a| a.name == arm.name).and_then(|a| a.point.as_ref())
}

fn draw_one(view: &View<'_>, arms: &[&Arm], tokens: f64, file: &str, title: String) -> Result<Drawing> {
    let mut canvas = Canvas::new(760.0, 640.0);
    let seeds = view.seeds_note();
    let about = format!("Mean over the steps of {seeds} in {BINS} equal parts of the budget.");
    let under = heading(&mut canvas, &title, &about);
    let head = under + key::draw(&mut canvas, under - 6.0, arms.iter().copied());
    for (i, quantity) in QUANTITIES.iter().enumerate() {
        let curves: Vec<Curve<'_>> = arms
            .iter()
            .map(|&arm| Curve { arm, bins: bins(view, quantity, &arm.name, tokens) })
            .filter(|c| c.bins.len() > 1)
            .collect();
        if curves.is_empty() {
            continue;
        }
        let (left, top) = (66.0 + 368.0 * (i % 2) as f64, head + 26.0 + 256.0 * (i / 2) as f64);
        panel(
            &mut canvas,
            quantity,
            &curves,
            tokens,
            Frame { left, top, right: left + 306.0, bottom: top + 184.0 },
        );
    }
    let caption = format!(
        "{title}: z0 as estimated from mismatched completions before it is clamped at 0; the share of steps in which the \
         clamp was at work; the saturation of the loss, mean of 1 − 4σ(s)σ(−s) with s = β(log π/π_ref − z0), 0 where the \
         gradient is steepest and 1 where it has vanished; the share of desirable completions in a step. Mean over the \
         steps of {seeds}. From steps.csv."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(Drawing { name: file.to_owned(), title, caption, section: Section::Training, svg, marks })
}

fn bins(view: &View<'_>, quantity: &Quantity, arm: &str, tokens: f64) -> Vec<(f64, f64)> {
    let mut values = vec![vec![]; BINS];
    for step in view.input.steps.iter().filter(|s| s.arm == arm && view.counts(&s.run)) {
        let Some(value) = (quantity.value)(step).filter(|v| v.is_finite()) else { continue };
        let bin = (step.total_policy_tokens as f64 / tokens * BINS as f64).ceil() as usize;
        values[bin.clamp(1, BINS) - 1].push(value);
    }
    let width = tokens / BINS as f64;
    let filled = values.iter().enumerate().filter(|(_, v)| !v.is_empty());
    filled.map(|(i, v)| ((i as f64 + 0.5) * width, mean(v))).collect()
}

fn panel(canvas: &mut Canvas, quantity: &Quantity, curves: &[Curve<'_>], tokens: f64, frame: Frame) {
    let values = curves.iter().flat_map(|c| c.bins.iter().map(|b| b.1));
    let y = match quantity.ticks {
        Ticks::Percent => Scale { low: 0.0, high: 1.0, log: false, from: 0.0, to: 1.0 },
        _ => Scale::over(values.chain([0.0])),
    };
    let panel = Panel::new(frame, Scale { low: 0.0, high: tokens, log: false, from: 0.0, to: 1.0 }, y);
    panel.name(canvas, quantity.name);
    panel.y_axis(canvas, quantity.axis, quantity.ticks);
    panel.x_axis(canvas, "policy tokens", Ticks::Si);
    for curve in curves {
        let style = curve.arm.style;
        let path: Vec<Place> = curve.bins.iter().map(|b| panel.at(b.0, b.1)).collect();
        canvas.dashed(&path, style.color, 2.0, style.dash);
        let rows = format!("steps.csv[arm={}]", curve.arm.name);
        let every = (curve.bins.len() / 5).max(1);
        for (x, value) in curve.bins.iter().rev().step_by(every) {
            let label =
                format!("{}: {} {} near {} tokens", curve.arm.name, quantity.name, plain(*value), si(*x));
            canvas.mark(&label, &rows, |c| c.marker(panel.at(*x, *value), style.marker, 3.6, style.color));
        }
    }
}
