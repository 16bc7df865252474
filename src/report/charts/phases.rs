//! What learning from samples costs, phase by phase.

use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::PhaseRow;
use crate::report::format::{lines, plain, si};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, TextSpec, faded, text_width};
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, fitted, heading};
use crate::report::view::{Arm, View, distinct};

pub const CHART: Chart = Chart { name: "phases", draw };

const ROW: f64 = 40.0;
/// From dark to light, in the order of the phases.
const SHADES: [f64; 5] = [0.85, 0.65, 0.48, 0.32, 0.18];

/// Means over runs of one phase of an arm.
struct Part {
    phase: String,
    flops: f64,
    seconds: f64,
    tokens: f64,
    lines: Vec<usize>,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let arms: Vec<(&Arm, Vec<Part>)> =
        view.trained().map(|a| (a, parts(view, a))).filter(|(_, p)| !p.is_empty()).collect();
    if arms.is_empty() {
        return Ok(Vec::new());
    }
    let names = arms.iter().map(|(a, _)| text_width(&a.name, LABEL)).fold(30.0, f64::max).min(130.0) + 30.0;
    let height = ROW * arms.len() as f64;
    let mut canvas = Canvas::new(760.0, 84.0 + height + 56.0);
    let title = "Compute by phase of learning from samples".to_owned();
    let seeds = view.seeds_note();
    heading(
        &mut canvas,
        &title,
        &format!("FLOPs a run, mean over {seeds}; phases from left to right as named."),
    );
    let most = arms.iter().map(|(_, p)| p.iter().map(|p| p.flops).sum::<f64>()).fold(0.0, f64::max);
    let frame = Frame { left: names, top: 84.0, right: 736.0, bottom: 84.0 + height };
    let panel = Panel::new(frame, Scale::from_zero([most]), Scale::unit());
    panel.x_axis(&mut canvas, "FLOPs a run", Ticks::Si);
    for (i, (arm, parts)) in arms.iter().enumerate() {
        bar(&mut canvas, &panel, arm, parts, frame.top + (i as f64 + 0.5) * ROW);
    }
    canvas.line(&[(frame.left, frame.top), (frame.left, frame.bottom)], AXIS, 1.2);
    let spent = arms.iter().map(|(a, p)| format!("{}: {}", a.name, words(p))).collect::<Vec<_>>().join("; ");
    let caption = format!(
        "{title}: training the reward model, drawing samples, scoring them, their log-probs under the reference, and \
         updates; analytic FLOPs, mean over {seeds}. {spent}."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "phases".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

/// `sampling 31 %, 5.2k tokens/s`, one a phase.
fn words(parts: &[Part]) -> String {
    let total: f64 = parts.iter().map(|p| p.flops).sum();
    let one = |p: &Part| {
        let speed =
            if p.seconds > 0.0 { format!(", {} tokens/s", si(p.tokens / p.seconds)) } else { String::new() };
        format!("{} {} %{speed}", p.phase, plain((1000.0 * p.flops / total).round() / 10.0))
    };
    parts.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn parts(view: &View<'_>, arm: &Arm) -> Vec<Part> {
    let numbered = view.input.phases.iter().enumerate();
    let rows: Vec<(usize, &PhaseRow)> =
        numbered.filter(|(_, r)| r.arm == arm.name && view.counts(&r.run)).collect();
    let runs = distinct(rows.iter().map(|(_, r)| r.run.as_str())).len() as f64;
    let part = |phase: String| {
        let own: Vec<_> = rows.iter().filter(|(_, r)| r.phase == phase).collect();
        let sum = |f: &dyn Fn(&PhaseRow) -> f64| own.iter().map(|(_, r)| f(r)).sum::<f64>() / runs;
        Part {
            flops: sum(&|r| r.flops),
            seconds: sum(&|r| r.seconds),
            tokens: sum(&|r| (r.forward_tokens + r.trained_tokens) as f64),
            lines: own.iter().map(|(i, _)| i + 2).collect(),
            phase,
        }
    };
    distinct(rows.iter().map(|(_, r)| r.phase.as_str())).into_iter().map(part).collect()
}

fn bar(canvas: &mut Canvas, panel: &Panel, arm: &Arm, parts: &[Part], y: f64) {
    canvas.text(&fitted(&arm.name, 130.0, LABEL), (panel.frame.left - 10.0, y), TextSpec::new(LABEL).right());
    let mut from = 0.0;
    for (part, shade) in parts.iter().zip(SHADES.iter().cycle()) {
        let (a, b) = (panel.x.at(from), panel.x.at(from + part.flops));
        let label = format!(
            "{}, {}: {} FLOPs, {} s a run",
            arm.name,
            part.phase,
            si(part.flops),
            plain(part.seconds)
        );
        let rows = format!("phases.csv:{}", lines(&part.lines));
        canvas.mark(&label, &rows, |c| c.rect((a, y - 10.0), (b, y + 10.0), faded(arm.style.color, *shade)));
        if text_width(&part.phase, TICK) + 8.0 < b - a {
            canvas.text(&part.phase, ((a + b) / 2.0, y), TextSpec::new(TICK).centre().halo());
        }
        from += part.flops;
    }
}
