//! Throughput, training time and peak memory by arm.

use super::{Chart, Drawing, Section, key};
use crate::base::error::Result;
use crate::record::RunRow;
use crate::report::format::{lines, plain, si};
use crate::report::summary::median;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, TextSpec, faded, text_width};
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, fitted, heading};
use crate::report::timing;
use crate::report::view::{Arm, View};

pub const CHART: Chart = Chart { name: "throughput", draw };

const ROW: f64 = 44.0;

struct Quantity {
    name: &'static str,
    axis: &'static str,
    value: fn(&RunRow) -> f64,
}

const QUANTITIES: [Quantity; 4] = [
    Quantity { name: "Throughput", axis: "policy tokens per second", value: |r| r.tokens_per_second },
    Quantity { name: "Training time", axis: "seconds a run", value: |r| r.train_seconds },
    Quantity { name: "Peak host memory", axis: "MiB", value: |r| r.peak_host_mib },
    Quantity { name: "Peak device memory", axis: "MiB", value: |r| r.peak_device_mib },
];

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let arms: Vec<_> = view.trained().filter(|a| !view.runs(&a.name).is_empty()).collect();
    let measured =
        |q: &&Quantity| arms.iter().any(|a| view.runs(&a.name).iter().any(|(_, r)| (q.value)(r) > 0.0));
    let quantities: Vec<_> = QUANTITIES.iter().filter(measured).collect();
    if arms.is_empty() || quantities.is_empty() {
        return Ok(Vec::new());
    }
    let names = arms.iter().map(|a| text_width(&a.name, LABEL)).fold(30.0, f64::max).min(130.0) + 30.0;
    let height = ROW * arms.len() as f64;
    let mut canvas = Canvas::new(760.0, 80.0 + height + 52.0);
    let title = "Throughput, time and peak memory".to_owned();
    let seeds = view.seeds_note();
    heading(
        &mut canvas,
        &title,
        &format!("Median over {seeds}; rings are single runs. Measured on the machine that ran it."),
    );
    let width = (760.0 - names - 16.0 + 30.0) / quantities.len() as f64;
    for (i, quantity) in quantities.iter().enumerate() {
        let left = names + width * i as f64;
        let frame = Frame { left, top: 80.0, right: left + width - 30.0, bottom: 80.0 + height };
        panel(&mut canvas, view, quantity, &arms, frame, i == 0);
    }
    let caption = format!(
        "{title} by arm: bars are medians over {seeds}, rings single runs. The reference's passes are \
         part of the time, scoring is not; peak memory is that of the process during training.{}",
        timing::uneven(view).map(|words| format!(" {words}")).unwrap_or_default()
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "throughput".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

fn panel(
    canvas: &mut Canvas,
    view: &View<'_>,
    quantity: &Quantity,
    arms: &[&Arm],
    frame: Frame,
    named: bool,
) {
    let runs: Vec<_> = arms.iter().map(|a| view.runs(&a.name)).collect();
    let most = runs.iter().flatten().map(|(_, r)| (quantity.value)(r)).fold(0.0, f64::max);
    let x = Scale::from_zero([most]);
    let panel = Panel::new(frame, x, Scale::unit());
    panel.name(canvas, quantity.name);
    panel.x_axis(canvas, quantity.axis, Ticks::Si);
    for (i, (arm, runs)) in arms.iter().zip(&runs).enumerate() {
        let y = frame.top + (i as f64 + 0.5) * ROW;
        if named {
            canvas.text(
                &fitted(&arm.name, 130.0, LABEL),
                (frame.left - 10.0, y),
                TextSpec::new(LABEL).right(),
            );
        }
        bar(canvas, &panel, quantity, arm, runs, y);
    }
    canvas.line(&[(frame.left, frame.top), (frame.left, frame.bottom)], AXIS, 1.2);
}

fn bar(
    canvas: &mut Canvas,
    panel: &Panel,
    quantity: &Quantity,
    arm: &Arm,
    runs: &[(usize, &RunRow)],
    y: f64,
) {
    let values: Vec<_> = runs.iter().map(|(_, r)| (quantity.value)(r)).collect();
    let middle = median(&values);
    let write = |v: f64| if v >= 1000.0 { si(v) } else { plain(v) };
    let at: Vec<_> = runs.iter().map(|(line, _)| *line).collect();
    let rows = format!("runs.csv:{}", lines(&at));
    let label = format!("{}: {} {}", arm.name, write(middle), quantity.axis);
    let (left, end) = (panel.frame.left, panel.x.at(middle));
    canvas.mark(&label, &rows, |c| {
        c.rect((left, y - 9.0), (end, y + 9.0), faded(arm.style.color, 0.32));
        c.line(&[(end, y - 9.0), (end, y + 9.0)], arm.style.color, 2.2);
        let furthest = values.iter().copied().fold(middle, f64::max);
        c.text(&write(middle), (panel.x.at(furthest) + 7.0, y), TextSpec::new(TICK).halo());
    });
    for ((_, run), value) in runs.iter().zip(&values).filter(|_| runs.len() > 1) {
        let label = format!("{}, seed {}: {} {}", arm.name, run.seed, write(*value), quantity.axis);
        canvas.mark(&label, &rows, |c| key::seed_dot(c, (panel.x.at(*value), y), arm));
    }
}
