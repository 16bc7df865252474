//! The headline score against what was spent: tokens, FLOPs, seconds, labels.

use super::{Chart, Drawing, Section, key, scatter};
use crate::base::error::Result;
use crate::record::RunRow;
use crate::report::format::{capitalised, si};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::Canvas;
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "cost", draw };

type Currency = (&'static str, &'static str, fn(&RunRow) -> f64);

const CURRENCIES: [Currency; 4] = [
    ("policy tokens trained on", " tokens", |r| r.policy_tokens as f64),
    ("compute (FLOPs, with reference and KL passes)", " FLOPs", |r| r.flops),
    ("wall-clock time (s, training with the reference's passes)", " s", |r| r.train_seconds),
    ("feedback labels seen", " labels", |r| r.labels as f64),
];

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(metric) = view.headline() else { return Ok(Vec::new()) };
    let spent = |c: &&Currency| scatter::dots(view, &metric, |r| Some(c.2(r))).iter().any(|d| d.x > 0.0);
    let currencies: Vec<_> = CURRENCIES.iter().filter(spent).collect();
    if currencies.is_empty() {
        return Ok(Vec::new());
    }
    let rows = currencies.len().div_ceil(2) as f64;
    let mut canvas = Canvas::new(760.0, 90.0 + rows * 250.0);
    let name = capitalised(&metric.label());
    let title = format!("{name} by what was spent");
    let seeds = view.seeds_note();
    heading(
        &mut canvas,
        &title,
        &format!("Suite {}; mean over {seeds} with 95 % interval; rings are single seeds.", metric.suite),
    );
    key::draw(&mut canvas, 56.0, view.trained());
    for (i, currency) in currencies.iter().enumerate() {
        let (left, top) = (66.0 + 364.0 * (i % 2) as f64, 98.0 + 250.0 * (i / 2) as f64);
        panel(
            &mut canvas,
            view,
            &metric,
            currency,
            Frame { left, top, right: left + 304.0, bottom: top + 188.0 },
        );
    }
    let scores: Vec<_> = view.trained().filter_map(|a| view.score(&metric, ALL, &a.name)).collect();
    let caption = format!(
        "{title} on {}, in each currency of the ledger: mean over {seeds} with 95 % interval (seed spread and \
         prompt sampling; {} examples a seed), rings are seeds.{} All axes of cost start at 0; points that \
         would cover each other are set side by side, and the ticks below the axis mark their true amounts.",
        metric.suite,
        key::examples(scores.iter()),
        scatter::base_words(view, &metric)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "cost".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

fn panel(canvas: &mut Canvas, view: &View<'_>, metric: &Metric, currency: &Currency, frame: Frame) {
    let dots = scatter::dots(view, metric, |r| Some(currency.2(r)));
    let amounts = dots.iter().flat_map(|d| d.seeds.iter().map(|s| s.0));
    let x = Scale::from_zero(amounts);
    let y = scatter::heights(view, metric, &dots);
    let panel = Panel::new(frame, x, y);
    panel.x_axis(canvas, currency.0, Ticks::Si);
    panel.y_axis(canvas, &metric.label(), metric.ticks());
    scatter::base_line(canvas, &panel, view, metric);
    scatter::points(canvas, &panel, &dots, metric, |v| format!("{}{}", si(v), currency.1));
}
