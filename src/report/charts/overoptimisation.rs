//! What a policy learns from and what is meant by it, against how far it has moved (Gao, Schulman and Hilton 2022,
//! arXiv 2210.10760): where the first goes on rising and the second does not, the reward's errors are exploited.

use std::collections::BTreeSet;

use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::RolloutRow;
use crate::report::format::{capitalised, plain, signed};
use crate::report::summary::{Summary, mean};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, TextSpec, faded};
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, LABEL, Panel, heading, spread};
use crate::report::view::{Arm, View};
use crate::stats::parting::{Change, Part, parting};

pub const CHART: Chart = Chart { name: "overoptimisation", draw };

/// Rollouts are averaged over this many equal parts of a run.
const PARTS: usize = 12;
/// Radius of the ring around the first part of a path.
const START: f64 = 7.5;

struct Quantity {
    name: &'static str,
    axis: &'static str,
    value: fn(&RolloutRow) -> Option<f64>,
    /// Each run's path is drawn from 0: the zero of a reward model is its own.
    from_start: bool,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity { name: "gold reward", axis: "gold reward of samples", value: |r| r.gold, from_start: false },
    Quantity {
        name: "change of the reward learned from",
        axis: "less that of the first part",
        value: |r| Some(r.reward),
        from_start: true,
    },
];

/// Each part of an arm's runs, in order of training.
struct Path<'v> {
    arm: &'v Arm,
    points: Vec<PathPoint>,
}

/// Over the runs' means of a part.
struct PathPoint {
    kl: f64,
    value: Summary,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let found: Vec<_> =
        QUANTITIES.iter().map(|q| (q, paths(view, q))).filter(|(_, p)| !p.is_empty()).collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut canvas = Canvas::new(760.0, 340.0);
    let title = "Rewards of the policies' own samples by KL moved".to_owned();
    let seeds = view.seeds_note();
    heading(
        &mut canvas,
        &title,
        &format!(
            "Mean over {seeds}; {PARTS} parts of a run, in order of training, from the ringed one on; bars are 95 % intervals."
        ),
    );
    for (i, (quantity, paths)) in found.iter().enumerate() {
        let left = 66.0 + 372.0 * i as f64;
        panel(&mut canvas, quantity, paths, Frame { left, top: 86.0, right: left + 250.0, bottom: 286.0 });
    }
    let caption = format!(
        "{title}: mean over {seeds} of the rollouts in each of {PARTS} equal parts of a run, joined in order of \
         training from the ringed first part on, with 95 % intervals over seeds. Left, the gold reward, where the world \
         knows it; right, the reward that the arm learns from, less that of the run's first part (scale and zero of a \
         reward model are its own: the heights of arms do not compare). An arm whose right path rises while its \
         left one falls exploits its reward model's errors.{}",
        partings(view)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = "overoptimisation".to_owned();
    Ok(vec![Drawing { name, title, caption, section: Section::Training, svg, marks }])
}

fn rollouts<'a>(view: &View<'a>, arm: &Arm) -> Vec<&'a RolloutRow> {
    view.input.rollouts.iter().filter(|r| r.arm == arm.name && view.counts(&r.run)).collect()
}

/// A sentence on each arm that learns from a reward model.
fn partings(view: &View<'_>) -> String {
    let sentence = |arm: &Arm| {
        let rows = rollouts(view, arm);
        // An arm that learns from the gold reward itself has no proxy that could part from it.
        let differs = rows.iter().any(|r| r.gold.is_some_and(|gold| gold != r.reward));
        let runs: Vec<Vec<Part>> =
            runs(&rows).into_iter().map(|run| run.iter().filter_map(|rows| part(rows)).collect()).collect();
        let found = parting(&runs).filter(|_| differs)?;
        let change = |c: Change| {
            let [mean, low, high] = [c.mean, c.interval.low, c.interval.high].map(|v| signed(v, 3));
            format!("{mean} [{low}, {high}]")
        };
        let said = if found.is_shown() { "over-optimised" } else { "no over-optimisation shown" };
        let (gold, proxy) = (change(found.gold), change(found.proxy));
        Some(format!(
            " {}: from the gold reward's peak to the end {gold} gold and {proxy} learned from: {said}.",
            arm.name
        ))
    };
    let all: String = view.trained().filter_map(sentence).collect();
    if all.is_empty() {
        return all;
    }
    format!(" Each run's peak is taken where the other runs' mean is highest.{all}")
}

/// The rows of each run by part; rows that lack what is asked for are the caller's to leave out.
fn runs<'r>(rows: &[&'r RolloutRow]) -> Vec<Vec<Vec<&'r RolloutRow>>> {
    let names: BTreeSet<&str> = rows.iter().map(|r| r.run.as_str()).collect();
    let parts = |name: &&str| {
        let run: Vec<&RolloutRow> = rows.iter().copied().filter(|r| r.run == **name).collect();
        let last = run.iter().map(|r| r.rollout).max().unwrap_or(1);
        let mut parts = vec![vec![]; PARTS];
        for row in run {
            let part = (row.rollout.saturating_sub(1) as usize * PARTS / last as usize).min(PARTS - 1);
            parts[part].push(row);
        }
        parts
    };
    names.iter().map(parts).collect()
}

fn part(rows: &Vec<&RolloutRow>) -> Option<Part> {
    let gold: Vec<f64> = rows.iter().map(|r| r.gold).collect::<Option<_>>()?;
    let proxy: Vec<f64> = rows.iter().map(|r| r.reward).collect();
    (!rows.is_empty()).then(|| Part { proxy: mean(&proxy), gold: mean(&gold) })
}

fn paths<'v>(view: &'v View<'_>, quantity: &Quantity) -> Vec<Path<'v>> {
    let path = |arm: &'v Arm| {
        let rows = rollouts(view, arm);
        let runs = runs(&rows);
        let point = |part: usize| {
            let of_run = |run: &Vec<Vec<&RolloutRow>>| {
                let (kl, value) = means(&run[part], quantity)?;
                let start = run.iter().find_map(|part| means(part, quantity)).map_or(0.0, |(_, start)| start);
                Some((kl, if quantity.from_start { value - start } else { value }))
            };
            let (kl, value): (Vec<f64>, Vec<f64>) = runs.iter().filter_map(of_run).unzip();
            (!kl.is_empty()).then(|| PathPoint { kl: mean(&kl), value: Summary::of_scores(&value, &[]) })
        };
        Path { arm, points: (0..PARTS).filter_map(point).collect() }
    };
    view.trained().map(path).filter(|p| p.points.len() > 1).collect()
}

/// Mean KL and value of a part of a run.
fn means(part: &[&RolloutRow], quantity: &Quantity) -> Option<(f64, f64)> {
    let pairs = part.iter().filter_map(|r| Some((r.kl?, (quantity.value)(r)?)));
    let (kl, value): (Vec<f64>, Vec<f64>) = pairs.unzip();
    (!kl.is_empty()).then(|| (mean(&kl), mean(&value)))
}

fn panel(canvas: &mut Canvas, quantity: &Quantity, paths: &[Path<'_>], frame: Frame) {
    let all = || paths.iter().flat_map(|p| &p.points);
    let x = Scale::over(all().map(|p| p.kl));
    let y = Scale::over(all().flat_map(|p| [p.value.low, p.value.high]));
    let panel = Panel::new(frame, x, y);
    panel.name(canvas, &capitalised(quantity.name));
    panel.x_axis(canvas, "KL from the reference (nats a sample)", Ticks::Plain);
    panel.y_axis(canvas, quantity.axis, Ticks::Plain);
    for path in paths {
        let style = path.arm.style;
        let points: Vec<Point> = path.points.iter().map(|p| panel.at(p.kl, p.value.mean)).collect();
        for (point, at) in path.points.iter().zip(&points) {
            let ends = [point.value.low, point.value.high].map(|v| (at.0, panel.at(point.kl, v).1));
            canvas.line(&ends, faded(style.color, 0.35), 1.4);
        }
        canvas.dashed(&points, style.color, 2.0, style.dash);
        canvas.ring(points[0], START, style.color, 1.4);
        let rows = format!("rollouts.csv[arm={}]", path.arm.name);
        for (i, (point, at)) in path.points.iter().zip(&points).enumerate() {
            let [mean, low, high] = [point.value.mean, point.value.low, point.value.high].map(plain);
            let label = format!(
                "{}, part {} of {PARTS}: {} {mean} [{low}, {high}] at {} nats",
                path.arm.name,
                i + 1,
                quantity.name,
                plain(point.kl)
            );
            canvas.mark(&label, &rows, |c| c.marker(*at, style.marker, 3.4, style.color));
        }
    }
    let ends: Vec<Point> =
        paths.iter().filter_map(|p| p.points.last().map(|e| panel.at(e.kl, e.value.mean))).collect();
    let wanted: Vec<_> = ends.iter().map(|e| e.1).collect();
    for ((path, end), height) in paths.iter().zip(&ends).zip(spread(&wanted, 15.0, frame.top, frame.bottom)) {
        let x = frame.right + 14.0;
        canvas.line(&[(end.0 + 5.0, end.1), (x - 3.0, height)], AXIS, 0.8);
        canvas.text(&path.arm.name, (x, height), TextSpec::new(LABEL).halo());
    }
}
