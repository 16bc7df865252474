//! A metric against what was spent, a line an arm along a swept budget: FLOPs, seconds, money, labels.

use super::sweep::{base_line, level, level_words};
use super::{Chart, Drawing, Section};
use crate::base::error::Result;
use crate::record::RunRow;
use crate::report::format::{capitalised, lines, si};
use crate::report::summary::mean;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::{Canvas, Point};
use crate::report::svg::canvas::{TextSpec, text_width};
use crate::report::svg::palette::ArmStyle;
use crate::report::svg::panel::{Frame, LABEL, Panel, heading};
use crate::report::sweep::{self, Line};
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "sweep-cost", draw };

struct Currency {
    name: String,
    amount: Box<dyn Fn(&RunRow) -> f64>,
}

fn currencies(price: f64, money: &str) -> Vec<Currency> {
    let seconds = |r: &RunRow| r.train_seconds;
    let mut all = vec![
        Currency {
            name: "compute (FLOPs, with reference and KL passes)".into(),
            amount: Box::new(|r| r.flops),
        },
        Currency {
            name: "wall-clock time (s, with the reference's passes)".into(),
            amount: Box::new(seconds),
        },
    ];
    if price > 0.0 {
        let amount = Box::new(move |r: &RunRow| seconds(r) / 3600.0 * price);
        all.push(Currency { name: format!("money ({money}, at {price} a device-hour)"), amount });
    }
    all.push(Currency { name: "feedback labels seen".into(), amount: Box::new(|r| r.labels as f64) });
    all
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(plan) = sweep::plan(view.input).filter(|p| p.swept()) else { return Ok(Vec::new()) };
    let Some(swept) = sweep::axes(&plan).into_iter().find(|a| a.key.starts_with("budget.")) else {
        return Ok(Vec::new());
    };
    let Some(metric) = view.headline() else { return Ok(Vec::new()) };
    let currencies = currencies(plan.prices.device_hour, &plan.prices.currency);
    let rows = currencies.len().div_ceil(2) as f64;
    let mut canvas = Canvas::new(760.0, 96.0 + rows * 250.0);
    let title = format!("{} by what a run cost", capitalised(&metric.label()));
    let seeds = view.seeds_note();
    heading(
        &mut canvas,
        &title,
        &format!("Suite {}; mean over {seeds} with 95 % interval; one point a budget.", metric.suite),
    );
    key(&mut canvas, 56.0, &swept.lines);
    for (i, currency) in currencies.iter().enumerate() {
        let (left, top) = (66.0 + 364.0 * (i % 2) as f64, 88.0 + 250.0 * (i / 2) as f64);
        let frame = Frame { left, top, right: left + 304.0, bottom: top + 188.0 };
        panel(&mut canvas, view, &metric, currency, &swept.lines, frame);
    }
    let caption = format!(
        "{title}, on {}, in each currency of the ledger: mean over {seeds} with 95 % interval, one point a budget of \
         the sweep, dashed line {}. A line further left reaches the same for less. Time and money are of this machine.",
        metric.suite,
        level_words(view, &metric)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "sweep-cost".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

fn key(canvas: &mut Canvas, y: f64, all: &[Line]) {
    let mut x = 22.0;
    for (i, line) in all.iter().enumerate() {
        let style = ArmStyle::nth(i);
        canvas.dashed(&[(x - 6.0, y), (x + 18.0, y)], style.color, 2.0, style.dash);
        canvas.marker((x + 6.0, y), style.marker, 5.0, style.color);
        canvas.text(&line.label, (x + 24.0, y), TextSpec::new(LABEL));
        x += 50.0 + text_width(&line.label, LABEL);
    }
}

/// A point of a line: mean amount, score, rows.
struct Spent {
    x: f64,
    y: crate::report::summary::Summary,
    rows: String,
}

fn spent(view: &View<'_>, metric: &Metric, currency: &Currency, line: &Line) -> Vec<Spent> {
    let mut all: Vec<Spent> = vec![];
    for (_, arm) in &line.points {
        let runs = view.runs(arm);
        let (Some(score), false) = (view.score(metric, ALL, arm), runs.is_empty()) else { continue };
        let amounts: Vec<f64> = runs.iter().map(|(_, r)| (currency.amount)(r)).collect();
        let at: Vec<usize> = runs.iter().map(|(line, _)| *line).collect();
        let rows = format!("{} runs.csv:{}", score.rows, lines(&at));
        all.push(Spent { x: mean(&amounts), y: score.summary, rows });
    }
    all.sort_by(|a, b| a.x.total_cmp(&b.x));
    all
}

fn panel(
    canvas: &mut Canvas,
    view: &View<'_>,
    metric: &Metric,
    currency: &Currency,
    all: &[Line],
    frame: Frame,
) {
    let series: Vec<Vec<Spent>> = all.iter().map(|l| spent(view, metric, currency, l)).collect();
    let x: Vec<f64> = series.iter().flatten().map(|s| s.x).collect();
    let base = level(view, metric);
    let y = Scale::over(series.iter().flatten().flat_map(|s| [s.y.low, s.y.high]).chain(base));
    let panel = Panel::new(frame, Scale::over_amounts(&x), y);
    panel.x_axis(canvas, &currency.name, Ticks::Si);
    panel.y_axis(canvas, &metric.label(), metric.ticks());
    base_line(canvas, &panel, view, metric);
    for (i, (line, points)) in all.iter().zip(&series).enumerate() {
        let style = ArmStyle::nth(i);
        let path: Vec<Point> = points.iter().map(|s| panel.at(s.x, s.y.mean)).collect();
        canvas.dashed(&path, style.color, 2.0, style.dash);
        for s in points {
            let said = |v: f64| metric.unit.value(v);
            let label = format!(
                "{}: {} ({} to {}) at {} of {}",
                line.label,
                said(s.y.mean),
                said(s.y.low),
                said(s.y.high),
                si(s.x),
                currency.name
            );
            canvas.mark(&label, &s.rows, |c| {
                panel.interval_up(c, (s.y.low, s.y.high), panel.x.at(s.x), style.color);
                c.marker(panel.at(s.x, s.y.mean), style.marker, 4.6, style.color);
            });
        }
    }
}
