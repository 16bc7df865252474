//! Learning curves: loss, reward margin, accuracy and KL over the budget, with the spread over seeds; those of a reward
//! model in panels of their own.

use std::collections::HashMap;

use serde_json::Value;

use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::{StepRow, TrialRow};
use crate::report::format::{capitalised, plain, si};
use crate::report::summary::mean;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, TextSpec, faded};
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, LABEL, Panel, heading, spread};
use crate::report::view::{Arm, View, distinct};
use crate::stats::tuning::best;

pub const CHART: Chart = Chart { name: "learning", draw };

/// Steps are averaged over this many equal parts of the budget.
const BINS: usize = 40;

/// Whose steps a quantity is of.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Policy,
    /// The one that an arm trains before its policy.
    RewardModel,
}

struct Quantity {
    name: &'static str,
    axis: &'static str,
    ticks: Ticks,
    of: Of,
    /// The second number is the arm's β.
    value: fn(&StepRow, Option<f64>) -> Option<f64>,
}

const LOSS: Quantity = Quantity {
    name: "loss",
    axis: "loss (own objective)",
    ticks: Ticks::Plain,
    of: Of::Policy,
    value: |s, _| Some(s.loss),
};
const MARGIN: Quantity = Quantity {
    name: "reward margin by β",
    axis: "margin / β (nats)",
    ticks: Ticks::Plain,
    of: Of::Policy,
    value: |s, beta| Some(s.margin? / beta?),
};
/// Where the plan does not tell some arm's β, as of external trainers.
const OWN_MARGIN: Quantity = Quantity {
    name: "reward margin",
    axis: "margin (nats × an arm's own β)",
    value: |s, _| s.margin,
    ..MARGIN
};
const ACCURACY: Quantity = Quantity {
    name: "accuracy on training pairs",
    axis: "share with margin > 0",
    ticks: Ticks::Percent,
    of: Of::Policy,
    value: |s, _| s.accuracy,
};
const Z0: Quantity = Quantity {
    name: "KL estimate z0, before its clamp at 0",
    axis: "z0 (nats)",
    ticks: Ticks::Plain,
    of: Of::Policy,
    value: |s, _| s.kl_unclamped.or(s.kl),
};
const MODEL_LOSS: Quantity =
    Quantity { name: "reward model: loss", axis: "loss (Bradley-Terry)", of: Of::RewardModel, ..LOSS };
const MODEL_ACCURACY: Quantity =
    Quantity { name: "reward model: accuracy on training pairs", of: Of::RewardModel, ..ACCURACY };

/// An arm's curve: (tokens, mean over seeds, least, most) a bin.
struct Curve<'v> {
    arm: &'v Arm,
    bins: Vec<(f64, f64, f64, f64)>,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let tokens = view.input.steps.iter().map(|s| s.total_policy_tokens).max().unwrap_or(0) as f64;
    let models = reward_models(view);
    let own = |s: &StepRow| s.margin.is_some() && step_of(&models, s) == Of::Policy;
    let with_margin = distinct(view.input.steps.iter().filter(|s| own(s)).map(|s| s.arm.as_str()));
    let margin = if with_margin.iter().all(|arm| beta(view, arm).is_some()) { MARGIN } else { OWN_MARGIN };
    let scaled = margin.name == MARGIN.name;
    let quantities = [LOSS, margin, ACCURACY, Z0, MODEL_LOSS, MODEL_ACCURACY];
    let curves: Vec<_> = quantities
        .iter()
        .map(|q| (q, curves(view, q, &models, tokens)))
        .filter(|(_, c)| !c.is_empty())
        .collect();
    if tokens == 0.0 || curves.is_empty() {
        return Ok(Vec::new());
    }
    let rows = curves.len().div_ceil(2);
    let mut canvas = Canvas::new(760.0, 72.0 + 252.0 * rows as f64);
    let title = "Learning curves".to_owned();
    let seeds = view.seeds_note();
    heading(&mut canvas, &title, &format!("Mean over {seeds}; shading spans the seeds (least to most)."));
    for (i, (quantity, curves)) in curves.iter().enumerate() {
        let (left, top) = (62.0 + 372.0 * (i % 2) as f64, 82.0 + 252.0 * (i / 2) as f64);
        panel(
            &mut canvas,
            quantity,
            curves,
            tokens,
            Frame { left, top, right: left + 264.0, bottom: top + 184.0 },
        );
    }
    let caption = format!(
        "Learning curves: mean over {seeds}, each the mean of its steps in {BINS} equal parts of the budget \
         (policy tokens); shading spans the seeds, least to most. Losses of different methods are different \
         functions: compare their shape, not their height. {}{} A quantity that a method does not have (the margin \
         of SFT, the accuracy of methods without pairs, the z0 of DPO) is not drawn.",
        margin_words(view, scaled, &with_margin),
        if models.is_empty() { "" } else { " A reward model is trained before the policy, and drawn apart." },
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "learning".to_owned(), title, caption, section: Section::Training, svg, marks }])
}

/// What margins of one panel share, with each arm's β.
fn margin_words(view: &View<'_>, scaled: bool, arms: &[String]) -> String {
    let each = arms.iter().filter_map(|arm| Some(format!("{arm} {}", si(beta(view, arm)?))));
    let each: Vec<String> = each.collect();
    match (arms.is_empty(), scaled) {
        (true, _) => String::new(),
        (false, true) => format!(
            "Margins are divided by each arm's β ({}): what chosen completions gained on rejected ones in log-prob (in \
             its mean over tokens, where a method normalises by length).",
            each.join(", ")
        ),
        (false, false) => {
            "A margin holds its arm's own β: compare shapes there too, where β differs.".to_owned()
        }
    }
}

/// An arm's β: of the trial that tuning chose, else the plan's.
fn beta(view: &View<'_>, arm: &str) -> Option<f64> {
    let trials: Vec<&TrialRow> = view.input.trials.iter().filter(|t| t.arm == arm).collect();
    let of_trial = |t: &TrialRow| t.values.split(' ').find_map(|v| v.strip_prefix("beta=")?.parse().ok());
    let arms = view.input.plan.get("arms").and_then(Value::as_array);
    let planned = || arms?.iter().find(|a| a["name"] == arm)?["method"]["beta"].as_f64();
    best(&trials).and_then(of_trial).or_else(planned).filter(|beta| *beta > 0.0)
}

/// Policy tokens that a run's reward model was trained on, which stand first in its steps.
fn reward_models<'v>(view: &View<'v>) -> HashMap<&'v str, u64> {
    let rows = view.input.phases.iter().filter(|p| p.phase == "reward-model" && p.trained_tokens > 0);
    rows.map(|p| (p.run.as_str(), p.trained_tokens)).collect()
}

fn step_of(models: &HashMap<&str, u64>, step: &StepRow) -> Of {
    let before = models.get(step.run.as_str()).is_some_and(|tokens| step.total_policy_tokens <= *tokens);
    if before { Of::RewardModel } else { Of::Policy }
}

fn curves<'v>(
    view: &'v View<'_>,
    quantity: &Quantity,
    models: &HashMap<&str, u64>,
    tokens: f64,
) -> Vec<Curve<'v>> {
    let found =
        view.trained().map(|arm| Curve { arm, bins: bins(view, quantity, models, &arm.name, tokens) });
    found.filter(|c| c.bins.len() > 1).collect()
}

fn bins(
    view: &View<'_>,
    quantity: &Quantity,
    models: &HashMap<&str, u64>,
    arm: &str,
    tokens: f64,
) -> Vec<(f64, f64, f64, f64)> {
    let own = |s: &&StepRow| s.arm == arm && view.counts(&s.run) && step_of(models, s) == quantity.of;
    let steps = || view.input.steps.iter().filter(own);
    let beta = beta(view, arm);
    let runs = distinct(steps().map(|s| s.run.as_str()));
    let mut sums = vec![vec![(0.0, 0.0); runs.len()]; BINS];
    for step in steps() {
        let Some(value) = (quantity.value)(step, beta).filter(|v| v.is_finite()) else { continue };
        let bin = (step.total_policy_tokens as f64 / tokens * BINS as f64).ceil() as usize;
        let run = runs.iter().position(|r| *r == step.run).unwrap_or(0);
        let cell = &mut sums[bin.clamp(1, BINS) - 1][run];
        *cell = (cell.0 + value, cell.1 + 1.0);
    }
    let width = tokens / BINS as f64;
    let mut found = Vec::new();
    for (i, cells) in sums.iter().enumerate() {
        let means: Vec<f64> = cells.iter().filter(|c| c.1 > 0.0).map(|c| c.0 / c.1).collect();
        if !means.is_empty() {
            let least = means.iter().copied().fold(f64::INFINITY, f64::min);
            let most = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            found.push(((i as f64 + 0.5) * width, mean(&means), least, most));
        }
    }
    found
}

fn panel(canvas: &mut Canvas, quantity: &Quantity, curves: &[Curve<'_>], tokens: f64, frame: Frame) {
    let y = Scale::over(curves.iter().flat_map(|c| c.bins.iter().flat_map(|b| [b.2, b.3])));
    let y = if quantity.ticks == Ticks::Percent { y.within(0.0, 1.0) } else { y };
    let x = Scale { low: 0.0, high: tokens, log: false, from: 0.0, to: 1.0 };
    let panel = Panel::new(frame, x, y);
    panel.name(canvas, &capitalised(quantity.name));
    panel.y_axis(canvas, quantity.axis, quantity.ticks);
    panel.x_axis(canvas, "policy tokens", Ticks::Si);
    for curve in curves {
        band(canvas, &panel, curve);
    }
    for curve in curves {
        line(canvas, &panel, quantity, curve);
    }
    let ends: Vec<Point> = curves.iter().filter_map(|c| c.bins.last().map(|b| panel.at(b.0, b.1))).collect();
    let wanted: Vec<_> = ends.iter().map(|e| e.1).collect();
    let heights = spread(&wanted, 15.0, frame.top, frame.bottom);
    for ((curve, end), height) in curves.iter().zip(&ends).zip(heights) {
        let x = frame.right + 14.0;
        canvas.line(&[(end.0 + 5.0, end.1), (x - 3.0, height)], AXIS, 0.8);
        canvas.text(&curve.arm.name, (x, height), TextSpec::new(LABEL).halo());
    }
}

fn band(canvas: &mut Canvas, panel: &Panel, curve: &Curve<'_>) {
    let mut outline: Vec<_> = curve.bins.iter().map(|b| panel.at(b.0, b.3)).collect();
    outline.extend(curve.bins.iter().rev().map(|b| panel.at(b.0, b.2)));
    canvas.polygon(&outline, faded(curve.arm.style.color, 0.16));
}

fn line(canvas: &mut Canvas, panel: &Panel, quantity: &Quantity, curve: &Curve<'_>) {
    let style = curve.arm.style;
    let points: Vec<_> = curve.bins.iter().map(|b| panel.at(b.0, b.1)).collect();
    canvas.dashed(&points, style.color, 2.0, style.dash);
    let write =
        |v: f64| if quantity.ticks == Ticks::Percent { format!("{} %", plain(100.0 * v)) } else { plain(v) };
    let rows = format!("steps.csv[arm={}]", curve.arm.name);
    let every = (curve.bins.len() / 6).max(1);
    for bin in curve.bins.iter().rev().step_by(every) {
        let (mean, least, most) = (write(bin.1), write(bin.2), write(bin.3));
        let label = format!(
            "{}: {} {mean} ({least} to {most}) near {} tokens",
            curve.arm.name,
            quantity.name,
            si(bin.0)
        );
        canvas.mark(&label, &rows, |c| c.marker(panel.at(bin.0, bin.1), style.marker, 3.6, style.color));
    }
}
