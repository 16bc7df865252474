//! Tuning: the expected best validation score of k trials, an arm a line, with the default and the best found.

use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::{Direction, TrialRow};
use crate::report::format::{Unit, capitalised, decimals, lines, metric as in_words, si};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point, TextSpec, faded};
use crate::report::svg::palette::{AXIS, INK, MUTED};
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, fitted, heading, spread};
use crate::report::view::{Arm, View};
use crate::stats::tuning::{Expected, best, expected_best, scored};

pub const CHART: Chart = Chart { name: "tuning", draw };

/// Height of a row of the table.
const ROW: f64 = 22.0;

/// What tuning found for an arm.
struct Tuned<'v> {
    arm: &'v Arm,
    rows: Vec<&'v TrialRow>,
    at: String,
    default: Option<f64>,
    best: &'v TrialRow,
    expected: Vec<Expected>,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let tuned: Vec<Tuned<'_>> = view.trained().filter_map(|arm| found(view, arm)).collect();
    let Some(first) = tuned.first() else { return Ok(Vec::new()) };
    let unit = Unit::of(&first.best.unit, &first.best.metric);
    let (name, suite) = (in_words(&first.best.metric), &first.best.suite);
    let mut canvas = Canvas::new(760.0, 480.0 + ROW * tuned.len() as f64);
    let title = format!("Tuning: expected best {name} of k trials");
    let subtitle = "On the validation split. Lines: expected best of k random trials, ± 1 standard deviation shaded; \
                    ring: the arm as planned; large marker: the trial that was chosen.";
    let top = heading(&mut canvas, &title, subtitle);
    let most = tuned.iter().map(|t| t.expected.len()).max().unwrap_or(1) as f64;
    let x = Scale { low: -0.3, high: most + 0.9, log: false, from: 0.0, to: 1.0 };
    let ends = |t: &Tuned<'_>| {
        let band = t.expected.iter().flat_map(|e| [e.mean - e.deviation, e.mean + e.deviation]);
        band.chain(t.default).chain([t.best.value]).collect::<Vec<_>>()
    };
    let y = Scale::over(tuned.iter().flat_map(ends));
    let y = if unit == Unit::Share { y.within(0.0, 1.0) } else { y };
    let panel = Panel::new(Frame { left: 74.0, top: top + 14.0, right: 640.0, bottom: 360.0 }, x, y);
    panel.x_axis(&mut canvas, "trials k (0: no search, the arm as planned)", Ticks::Plain);
    panel.y_axis(&mut canvas, &name, if unit == Unit::Share { Ticks::Percent } else { Ticks::Plain });
    curves(&mut canvas, &panel, &tuned, unit);
    table(&mut canvas, &tuned, unit, 420.0);
    let caption = format!(
        "{title}: {} on the validation split of the training data (suite {suite}, n = {}), {} random trials an arm beside \
         the arm as planned. Expected best and its standard deviation by Dodge et al. 2019 (arXiv 1909.03004), draws with \
         replacement; the arm as planned is no draw and does not enter. The chosen trial is the best of all. Held-out \
         suites were not looked at. The spending of all trials stands in trials.csv.",
        capitalised(&name),
        first.best.n,
        first.expected.len()
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "tuning".to_owned(), title, caption, section: Section::Training, svg, marks }])
}

fn found<'v>(view: &'v View<'_>, arm: &'v Arm) -> Option<Tuned<'v>> {
    let numbered = view.input.trials.iter().enumerate().filter(|(_, r)| r.arm == arm.name);
    let (at, rows): (Vec<usize>, Vec<&TrialRow>) = numbered.map(|(i, r)| (i + 2, r)).unzip();
    let chosen = best(&rows)?;
    let draws: Vec<f64> = rows.iter().filter(|r| r.trial > 0 && scored(r)).map(|r| r.value).collect();
    let default = rows.iter().find(|r| r.trial == 0 && scored(r)).map(|r| r.value);
    let expected = expected_best(&draws, chosen.direction == Direction::Lower);
    Some(Tuned { arm, at: format!("trials.csv:{}", lines(&at)), default, best: chosen, expected, rows })
}

fn curves(canvas: &mut Canvas, panel: &Panel, tuned: &[Tuned<'_>], unit: Unit) {
    for t in tuned {
        let edge = |sign: f64| t.expected.iter().map(move |e| (e.k as f64, e.mean + sign * e.deviation));
        let outline: Vec<Point> = edge(1.0)
            .chain(edge(-1.0).collect::<Vec<_>>().into_iter().rev())
            .map(|(x, y)| panel.at(x, y))
            .collect();
        if outline.len() > 3 {
            canvas.polygon(&outline, faded(t.arm.style.color, 0.12));
        }
    }
    let mut ends = vec![];
    for (i, t) in tuned.iter().enumerate() {
        let style = t.arm.style;
        let path: Vec<Point> = t.expected.iter().map(|e| panel.at(e.k as f64, e.mean)).collect();
        if path.len() > 1 {
            canvas.dashed(&path, style.color, 2.0, style.dash);
        }
        for e in &t.expected {
            let label = format!(
                "{}: expected best of {} is {} ± {}",
                t.arm.name,
                e.k,
                unit.value(e.mean),
                unit.spread(e.deviation)
            );
            canvas.mark(&label, &t.at, |c| {
                c.marker(panel.at(e.k as f64, e.mean), style.marker, 3.4, style.color)
            });
        }
        let beside = 8.0 * (i as f64 - 0.5 * (tuned.len() as f64 - 1.0));
        if let Some(default) = t.default {
            let (x, y) = panel.at(0.0, default);
            let label = format!("{} as planned: {}", t.arm.name, unit.value(default));
            canvas.mark(&label, &t.at, |c| c.ring((x + beside, y), 4.5, style.color, 1.8));
        }
        let (x, y) = panel.at(panel.x.high - 0.45, t.best.value);
        let label = format!("{}, chosen: {} ({})", t.arm.name, unit.value(t.best.value), said(t.best));
        canvas.mark(&label, &t.at, |c| c.marker((x + beside, y), style.marker, 6.0, style.color));
        ends.push(((x + beside, y), t.arm.name.as_str()));
    }
    let wanted: Vec<f64> = ends.iter().map(|e| e.0.1).collect();
    for ((end, name), y) in ends.iter().zip(spread(&wanted, 16.0, panel.frame.top, panel.frame.bottom)) {
        let x = panel.frame.right + 14.0;
        canvas.line(&[(end.0 + 8.0, end.1), (x - 3.0, y)], AXIS, 0.8);
        canvas.text(name, (x, y), TextSpec::new(LABEL).halo());
    }
}

fn said(row: &TrialRow) -> String {
    if row.values.is_empty() { "as planned".to_owned() } else { row.values.clone() }
}

/// As planned, best, expected best of all trials, what was chosen and what the search cost, a row an arm.
fn table(canvas: &mut Canvas, tuned: &[Tuned<'_>], unit: Unit, top: f64) {
    let columns = [100.0, 176.0, 290.0, 320.0, 650.0, 744.0];
    let head = TextSpec::new(TICK).color(MUTED);
    canvas.text("arm", (16.0, top), head);
    canvas.text("as planned", (columns[0] + 50.0, top), head.right());
    canvas.text("chosen", (columns[1] + 40.0, top), head.right());
    canvas.text("expected of all", (columns[2] + 10.0, top), head.right());
    canvas.text("values", (columns[3], top), head);
    canvas.text("trials", (columns[4] - 4.0, top), head.right());
    canvas.text("tokens spent", (columns[5], top), head.right());
    canvas.line(&[(16.0, top + 11.0), (744.0, top + 11.0)], AXIS, 1.0);
    for (i, t) in tuned.iter().enumerate() {
        let y = top + 11.0 + ROW * (i as f64 + 0.6);
        let text = TextSpec::new(LABEL).color(INK);
        let tokens: u64 = t.rows.iter().map(|r| r.policy_tokens).sum();
        let flops: f64 = t.rows.iter().map(|r| r.flops).sum();
        let expected = t.expected.last().map_or("–".to_owned(), |e| unit.value(e.mean));
        let label = format!(
            "{}: {} trials, {} policy tokens, {} FLOPs; chosen: {}",
            t.arm.name,
            t.rows.len(),
            si(tokens as f64),
            si(flops),
            said(t.best)
        );
        canvas.mark(&label, &t.at, |c| {
            c.text(&fitted(&t.arm.name, 90.0, LABEL), (16.0, y), text);
            c.text(
                &t.default.map_or("–".to_owned(), |d| unit.value(d)),
                (columns[0] + 50.0, y),
                text.right(),
            );
            c.text(&unit.value(t.best.value), (columns[1] + 40.0, y), text.right());
            c.text(&expected, (columns[2] + 10.0, y), text.right());
            c.text(&fitted(&said(t.best), 286.0, LABEL), (columns[3], y), text);
            c.text(&decimals(t.rows.len() as f64, 0), (columns[4] - 4.0, y), text.right());
            c.text(&si(tokens as f64), (columns[5], y), text.right());
        });
    }
}
