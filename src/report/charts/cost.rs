//! The headline score against what was spent: tokens, FLOPs, seconds, labels.

use super::{Chart, Drawing, Section, key, scatter};
use crate::base::error::Result;
use crate::record::RunRow;
use crate::report::format::{capitalised, si};
use crate::report::summary::median;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::Canvas;
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::timing;
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "cost", draw };

struct Currency {
    name: &'static str,
    axis: &'static str,
    /// After an amount.
    unit: &'static str,
    amount: fn(&RunRow) -> f64,
    /// What else runs on the machine slows some runs: an arm stands at the median of them.
    time: bool,
}

const CURRENCIES: [Currency; 4] = [
    Currency {
        name: "policy tokens",
        axis: "policy tokens trained on",
        unit: " tokens",
        amount: |r| r.policy_tokens as f64,
        time: false,
    },
    Currency {
        name: "compute",
        axis: "compute (FLOPs, with reference and KL passes)",
        unit: " FLOPs",
        amount: |r| r.flops,
        time: false,
    },
    Currency {
        name: "wall-clock time",
        axis: "wall-clock time (s, training with the reference's passes)",
        unit: " s",
        amount: |r| r.train_seconds,
        time: true,
    },
    Currency {
        name: "feedback labels",
        axis: "feedback labels seen",
        unit: " labels",
        amount: |r| r.labels as f64,
        time: false,
    },
];

type Spent<'v> = (&'static Currency, Vec<scatter::Dot<'v>>);

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(metric) = view.headline() else { return Ok(Vec::new()) };
    let spent = CURRENCIES.iter().map(|c| (c, dots(view, &metric, c)));
    let spent = spent.filter(|(_, dots)| dots.iter().any(|d| d.x > 0.0));
    let (alike, shown): (Vec<Spent<'_>>, Vec<Spent<'_>>) = spent.partition(|(_, dots)| scatter::alike(dots));
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    let rows = shown.len().div_ceil(2) as f64;
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
    for (i, (currency, dots)) in shown.iter().enumerate() {
        let (left, top) = (66.0 + 364.0 * (i % 2) as f64, 98.0 + 250.0 * (i / 2) as f64);
        let frame = Frame { left, top, right: left + 304.0, bottom: top + 188.0 };
        panel(&mut canvas, view, &metric, currency, dots, frame);
    }
    let scores: Vec<_> = view.trained().filter_map(|a| view.score(&metric, ALL, &a.name)).collect();
    let caption = format!(
        "{title} on {}: mean over {seeds} with 95 % interval (seed spread and prompt sampling; {} examples a seed), \
         rings are seeds; of time an arm stands at the median of its runs.{}{} All axes of cost start at 0. {}{}",
        metric.suite,
        key::examples(scores.iter()),
        left_out(&alike),
        scatter::base_words(view, &metric),
        scatter::ASIDE,
        timing::uneven(view).map(|words| format!(" {words}")).unwrap_or_default(),
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "cost".to_owned(), title, caption, section: Section::Cost, svg, marks }])
}

/// The points of a currency. Their rings say how far runs of an arm spread.
fn dots<'v>(view: &'v View<'_>, metric: &Metric, currency: &Currency) -> Vec<scatter::Dot<'v>> {
    let mut dots = scatter::dots(view, metric, |r| Some((currency.amount)(r)));
    for dot in &mut dots {
        dot.across = None;
        if currency.time {
            dot.x = median(&dot.seeds.iter().map(|s| s.0).collect::<Vec<_>>());
        }
    }
    dots
}

/// ` Not drawn, since all arms spent the same: compute (300 G FLOPs).`
fn left_out(alike: &[Spent<'_>]) -> String {
    let words = |(c, dots): &Spent<'_>| format!("{} ({}{})", c.name, si(dots[0].x), c.unit);
    match alike {
        [] => String::new(),
        alike => {
            let all: Vec<_> = alike.iter().map(words).collect();
            format!(" Not drawn, since all arms spent the same: {}.", all.join(", "))
        }
    }
}

fn panel(
    canvas: &mut Canvas,
    view: &View<'_>,
    metric: &Metric,
    currency: &Currency,
    dots: &[scatter::Dot<'_>],
    frame: Frame,
) {
    let x = Scale::from_zero(dots.iter().flat_map(|d| d.seeds.iter().map(|s| s.0)));
    let y = scatter::heights(view, metric, dots);
    let panel = Panel::new(frame, x, y);
    panel.x_axis(canvas, currency.axis, Ticks::Si);
    panel.y_axis(canvas, &metric.label(), metric.ticks());
    scatter::base_line(canvas, &panel, view, metric);
    scatter::points(canvas, &panel, dots, metric, |v| format!("{}{}", si(v), currency.unit));
}
