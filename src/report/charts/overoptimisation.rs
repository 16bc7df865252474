//! What a policy learns from and what is meant by it, against how far it has moved (Gao, Schulman and Hilton 2022,
//! arXiv 2210.10760): where the first goes on rising and the second does not, the reward's errors are exploited.

use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::RolloutRow;
use crate::report::format::{capitalised, plain};
use crate::report::summary::mean;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, TextSpec};
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, LABEL, Panel, heading, spread};
use crate::report::view::{Arm, View};

pub const CHART: Chart = Chart { name: "overoptimisation", draw };

/// Rollouts are averaged over this many equal parts of a run.
const PARTS: usize = 12;

struct Quantity {
    name: &'static str,
    axis: &'static str,
    value: fn(&RolloutRow) -> Option<f64>,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity { name: "gold reward", axis: "gold reward of samples", value: |r| r.gold },
    Quantity { name: "reward learned from", axis: "reward learned from", value: |r| Some(r.reward) },
];

/// (KL, reward) of each part of an arm's runs, in order of training.
struct Path<'v> {
    arm: &'v Arm,
    points: Vec<(f64, f64)>,
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
        &format!("Mean over {seeds}; {PARTS} parts of a run, in order of training."),
    );
    for (i, (quantity, paths)) in found.iter().enumerate() {
        let left = 66.0 + 372.0 * i as f64;
        panel(&mut canvas, quantity, paths, Frame { left, top: 86.0, right: left + 250.0, bottom: 286.0 });
    }
    let caption = format!(
        "{title}: mean over {seeds} of the rollouts in each of {PARTS} equal parts of a run, joined in order of \
         training. Left, the gold reward, where the world knows it; right, the reward that the arm learns from (the \
         scale of a reward model is its own). An arm whose right path rises while its left one falls exploits its \
         reward model's errors."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = "overoptimisation".to_owned();
    Ok(vec![Drawing { name, title, caption, section: Section::Training, svg, marks }])
}

fn paths<'v>(view: &'v View<'_>, quantity: &Quantity) -> Vec<Path<'v>> {
    let path = |arm: &'v Arm| {
        let rows: Vec<_> = view.input.rollouts.iter().filter(|r| r.arm == arm.name).collect();
        let last = |run: &str| rows.iter().filter(|r| r.run == run).map(|r| r.rollout).max().unwrap_or(1);
        let mut parts = vec![(vec![], vec![]); PARTS];
        for row in &rows {
            let (Some(kl), Some(value)) = (row.kl, (quantity.value)(row)) else { continue };
            let part =
                (row.rollout.saturating_sub(1) as usize * PARTS / last(&row.run) as usize).min(PARTS - 1);
            parts[part].0.push(kl);
            parts[part].1.push(value);
        }
        let filled = parts.iter().filter(|p| !p.0.is_empty());
        Path { arm, points: filled.map(|p| (mean(&p.0), mean(&p.1))).collect() }
    };
    view.trained().map(path).filter(|p| p.points.len() > 1).collect()
}

fn panel(canvas: &mut Canvas, quantity: &Quantity, paths: &[Path<'_>], frame: Frame) {
    let x = Scale::over(paths.iter().flat_map(|p| p.points.iter().map(|p| p.0)));
    let y = Scale::over(paths.iter().flat_map(|p| p.points.iter().map(|p| p.1)));
    let panel = Panel::new(frame, x, y);
    panel.name(canvas, &capitalised(quantity.name));
    panel.x_axis(canvas, "KL from the reference (nats a sample)", Ticks::Plain);
    panel.y_axis(canvas, quantity.axis, Ticks::Plain);
    for path in paths {
        let style = path.arm.style;
        let points: Vec<Point> = path.points.iter().map(|p| panel.at(p.0, p.1)).collect();
        canvas.dashed(&points, style.color, 2.0, style.dash);
        let rows = format!("rollouts.csv[arm={}]", path.arm.name);
        for (i, (kl, value)) in path.points.iter().enumerate() {
            let label = format!(
                "{}, part {} of {PARTS}: {} {} at {} nats",
                path.arm.name,
                i + 1,
                quantity.name,
                plain(*value),
                plain(*kl)
            );
            canvas.mark(&label, &rows, |c| c.marker(panel.at(*kl, *value), style.marker, 3.4, style.color));
        }
    }
    let ends: Vec<Point> = paths.iter().filter_map(|p| p.points.last().map(|e| panel.at(e.0, e.1))).collect();
    let wanted: Vec<_> = ends.iter().map(|e| e.1).collect();
    for ((path, end), height) in paths.iter().zip(&ends).zip(spread(&wanted, 15.0, frame.top, frame.bottom)) {
        let x = frame.right + 14.0;
        canvas.line(&[(end.0 + 5.0, end.1), (x - 3.0, height)], AXIS, 0.8);
        canvas.text(&path.arm.name, (x, height), TextSpec::new(LABEL).halo());
    }
}
