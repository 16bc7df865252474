//! Quality against compute with the Pareto front: arms that no cheaper arm beats.

use super::{Chart, Drawing, Section, key, scatter};
use crate::base::error::Result;
use crate::record::Direction;
use crate::report::format::{capitalised, si};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, faded};
use crate::report::svg::palette::{BAND, MUTED};
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "pareto", draw };

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(metric) = view.headline() else { return Ok(Vec::new()) };
    let dots = scatter::dots(view, &metric, |r| (r.flops > 0.0).then_some(r.flops));
    // For the same compute the front is the best arm, which the scores say already.
    if dots.len() < 2 || scatter::alike(&dots) {
        return Ok(Vec::new());
    }
    let mut canvas = Canvas::new(760.0, 430.0);
    let title = format!("{} by compute: the Pareto front", capitalised(&metric.label()));
    let seeds = view.seeds_note();
    let subtitle = "Grey: reached or beaten by an arm that costs no more. By the means alone; not a verdict.";
    heading(&mut canvas, &title, subtitle);
    let amounts: Vec<_> = dots.iter().flat_map(|d| d.seeds.iter().map(|s| s.0)).collect();
    let x = Scale::over_amounts(&amounts);
    let x = if x.log { x } else { Scale::from_zero(amounts) };
    let y = scatter::heights(view, &metric, &dots);
    let panel = Panel::new(Frame { left: 74.0, top: 70.0, right: 736.0, bottom: 378.0 }, x, y);
    front(&mut canvas, &panel, &metric, &dots);
    panel.x_axis(&mut canvas, "compute a run (FLOPs, with reference and KL passes)", Ticks::Si);
    panel.y_axis(&mut canvas, &metric.label(), metric.ticks());
    scatter::base_line(&mut canvas, &panel, view, &metric);
    scatter::draw(&mut canvas, &panel, &dots, &metric, |v| format!("{} FLOPs", si(v)));
    let scores: Vec<_> = dots.iter().filter_map(|d| view.score(&metric, ALL, &d.arm.name)).collect();
    let caption = format!(
        "{title}, on {}: mean over {seeds} with 95 % interval (seed spread and prompt sampling; {} examples a \
         seed). {subtitle} {}{}",
        metric.suite,
        key::examples(scores.iter()),
        scatter::ASIDE,
        scatter::base_words(view, &metric)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "pareto".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

/// The staircase through the arms that no arm of at most the same cost reaches.
fn front(canvas: &mut Canvas, panel: &Panel, metric: &Metric, dots: &[scatter::Dot<'_>]) {
    let sign = if metric.direction == Direction::Lower { -1.0 } else { 1.0 };
    let mut order: Vec<_> = dots.iter().map(|d| (d.x, d.y.mean)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then((sign * b.1).total_cmp(&(sign * a.1))));
    let floor = if sign > 0.0 { panel.frame.bottom } else { panel.frame.top };
    let mut stairs: Vec<Point> = Vec::new();
    let mut best = f64::NEG_INFINITY;
    for (x, y) in order.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
        if sign * y > best {
            let (px, py) = panel.at(x, y);
            let from = stairs.last().map_or(floor, |last| last.1);
            stairs.extend([(px, from), (px, py)]);
            best = sign * y;
        }
    }
    let Some((first, last)) = stairs.first().copied().zip(stairs.last().copied()) else { return };
    stairs.push((panel.frame.right, last.1));
    let mut area = stairs.clone();
    area.extend([(panel.frame.right, floor), (first.0, floor)]);
    canvas.polygon(&area, BAND);
    canvas.line(&stairs, faded(MUTED, 0.8), 1.3);
}
