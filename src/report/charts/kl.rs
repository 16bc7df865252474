//! How far the policy moved against what it won.

use super::{Chart, Drawing, Section, key, scatter};
use crate::base::error::Result;
use crate::record::RunRow;
use crate::report::format::{capitalised, plain};
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::Canvas;
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::view::{ALL, Metric, View};

pub const CHART: Chart = Chart { name: "kl", draw };

/// The share of the steps, at the end of training, over which the training estimate is averaged.
const LAST: f64 = 0.1;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let Some(metric) = view.headline() else { return Ok(Vec::new()) };
    let (source, dots) = moved(view, &metric);
    if dots.len() < 2 {
        return Ok(Vec::new());
    }
    let mut canvas = Canvas::new(760.0, 410.0);
    let title = format!("{} by KL moved", capitalised(&metric.label()));
    let seeds = view.seeds_note();
    heading(&mut canvas, &title, &format!("Mean over {seeds} with 95 % intervals; rings are single seeds."));
    let ends = |d: &scatter::Dot<'_>| d.across.map_or(d.x, |(_, high)| high);
    let x = Scale::from_zero(dots.iter().flat_map(|d| d.seeds.iter().map(|s| s.0).chain([ends(d)])));
    let y = scatter::heights(view, &metric, &dots);
    let panel = Panel::new(Frame { left: 74.0, top: 66.0, right: 736.0, bottom: 358.0 }, x, y);
    panel.x_axis(&mut canvas, "KL divergence from the reference (nats)", Ticks::Plain);
    panel.y_axis(&mut canvas, &metric.label(), metric.ticks());
    scatter::base_line(&mut canvas, &panel, view, &metric);
    scatter::draw(&mut canvas, &panel, &dots, &metric, |v| format!("{} nats", plain(v)));
    let scores: Vec<_> = dots.iter().filter_map(|d| view.score(&metric, ALL, &d.arm.name)).collect();
    let caption = format!(
        "{title}, on {}: {source}; mean over {seeds} with 95 % intervals (upright: seed spread and prompt sampling, \
         {} examples a seed; level: the spread of the KL over seeds). Of two arms that win as much, the one further left \
         has drifted less. {}{}",
        metric.suite,
        key::examples(scores.iter()),
        scatter::ASIDE,
        scatter::base_words(view, &metric)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    Ok(vec![Drawing { name: "kl".to_owned(), title, caption, section: Section::Training, svg, marks }])
}

/// KL by run: a scored metric named `kl…` where a suite has one, else the training estimate.
fn moved<'v>(view: &'v View<'_>, metric: &Metric) -> (String, Vec<scatter::Dot<'v>>) {
    let scores = &view.input.scores;
    let named = scores.iter().find(|s| s.subset == ALL && (s.metric == "kl" || s.metric.starts_with("kl_")));
    if let Some(named) = named {
        let value = |r: &RunRow| {
            let same = |s: &&crate::record::ScoreRow| {
                s.run == r.run && s.suite == named.suite && s.metric == named.metric && s.subset == ALL
            };
            scores.iter().find(same).map(|s| s.value)
        };
        return (
            format!("{} in samples of suite {}", crate::report::format::metric(&named.metric), named.suite),
            scatter::dots(view, metric, value),
        );
    }
    let source = "KL as estimated in training from mismatched completions, before the clamp, over the last tenth of the steps";
    (source.to_owned(), scatter::dots(view, metric, |r| last_estimate(view, r)))
}

fn last_estimate(view: &View<'_>, run: &RunRow) -> Option<f64> {
    let of_run = view.input.steps.iter().filter(|s| s.run == run.run);
    let from = (run.steps as f64 * (1.0 - LAST)) as u64;
    let late: Vec<_> = of_run.filter(|s| s.step >= from).filter_map(|s| s.kl_unclamped.or(s.kl)).collect();
    (!late.is_empty()).then(|| crate::report::summary::mean(&late))
}
