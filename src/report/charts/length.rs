//! Whether longer answers win: preference against the base by length of the completion.

use super::{Chart, Drawing, Section, file_part, key};
use crate::base::error::Result;
use crate::record::SampleRow;
use crate::report::format::{Unit, plain};
use crate::report::summary::Summary;
use crate::report::svg::axis::{Scale, Ticks};
use crate::report::svg::canvas::Canvas;
use crate::report::svg::palette::AXIS;
use crate::report::svg::panel::{Frame, Panel, heading};
use crate::report::view::{Arm, View, distinct};
use crate::suite::estimate;

pub const CHART: Chart = Chart { name: "length", draw };

/// Completions of an arm are cut into this many parts of equal number, by length.
const PARTS: usize = 5;
/// An arm with fewer completions says nothing about parts.
const LEAST: usize = 4 * PARTS;

/// A part: mean length, share won with its 95 % interval (clustered by prompt: all seeds answer the same ones),
/// completions.
struct Part {
    tokens: f64,
    won: Summary,
    n: usize,
}

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    let suites = distinct(view.input.samples.iter().map(|s| s.suite.as_str()));
    let opponents =
        distinct(view.input.samples.iter().flat_map(|s| s.opponents.iter().map(|o| o.name.as_str())));
    let Some(opponent) = opponents.iter().find(|o| *o == "base").or(opponents.first()) else {
        return Ok(Vec::new());
    };
    suites.iter().filter_map(|suite| draw_suite(view, suite, opponent).transpose()).collect()
}

fn draw_suite(view: &View<'_>, suite: &str, opponent: &str) -> Result<Option<Drawing>> {
    let arms = view.trained().map(|arm| (arm, parts(view, suite, opponent, &arm.name)));
    let arms: Vec<_> = arms.filter(|(_, parts)| !parts.is_empty()).collect();
    if arms.is_empty() {
        return Ok(None);
    }
    let mut canvas = Canvas::new(760.0, 418.0);
    let title = format!("Length against win on {suite}");
    let subtitle = format!(
        "Win rate against {opponent} in fifths of each arm's completions by length, with 95 % interval."
    );
    heading(&mut canvas, &title, &subtitle);
    key::draw(&mut canvas, 56.0, arms.iter().map(|(arm, _)| *arm));
    let all = || arms.iter().flat_map(|(_, parts)| parts);
    let x = Scale::over(all().map(|p| p.tokens));
    let y = Scale::over(all().flat_map(|p| [p.won.low, p.won.high]).chain([0.5])).within(0.0, 1.0);
    let panel = Panel::new(Frame { left: 74.0, top: 92.0, right: 736.0, bottom: 366.0 }, x, y);
    panel.x_axis(&mut canvas, "length of the completion (tokens)", Ticks::Plain);
    panel.y_axis(&mut canvas, &format!("win rate against {opponent}"), Ticks::Percent);
    let even = panel.y.at(0.5);
    canvas.dashed(&[(panel.frame.left, even), (panel.frame.right, even)], AXIS, 1.2, "3 3");
    for (arm, parts) in &arms {
        curve(&mut canvas, &panel, suite, arm, parts);
    }
    let n = arms.iter().map(|(_, p)| p.iter().map(|p| p.n).sum::<usize>()).max().unwrap_or(0);
    let caption = format!(
        "{title}: each arm's completions (n = {n}, seeds pooled) cut into fifths by length; mean length against \
         win rate over {opponent} (ties count one half), with its 95 % interval (clustered by prompt). A rising line means that \
         longer completions win more often, so that an arm can gain by length alone. Dashed line: even."
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = format!("length-{}", file_part(suite));
    Ok(Some(Drawing { name, title, caption, section: Section::Suite(suite.to_owned()), svg, marks }))
}

fn parts(view: &View<'_>, suite: &str, opponent: &str, arm: &str) -> Vec<Part> {
    let wanted = |s: &&SampleRow| s.suite == suite && s.arm == arm && view.counts(&s.run);
    let of_arm = view.input.samples.iter().filter(wanted);
    let against = |s: &SampleRow| s.opponents.iter().find(|o| o.name == opponent).map(|o| o.preference);
    let mut played: Vec<_> =
        of_arm.filter_map(|s| against(s).map(|p| (s.tokens, p, s.example.as_str()))).collect();
    if played.len() < LEAST {
        return Vec::new();
    }
    played.sort_by_key(|p| p.0);
    let part = |i: usize| {
        let cut = |i: usize| i * played.len() / PARTS;
        let rows = &played[cut(i)..cut(i + 1)];
        let won: Vec<_> = rows.iter().map(|r| r.1).collect();
        let prompts: Vec<&str> = rows.iter().map(|r| r.2).collect();
        let tokens = rows.iter().map(|r| r.0 as f64).sum::<f64>() / rows.len() as f64;
        let found = estimate::mean(&won, &prompts);
        Part { tokens, won: Summary::of_scores(&[found.value], &[found.standard_error]), n: won.len() }
    };
    (0..PARTS).map(part).collect()
}

fn curve(canvas: &mut Canvas, panel: &Panel, suite: &str, arm: &Arm, parts: &[Part]) {
    let style = arm.style;
    let points: Vec<_> = parts.iter().map(|p| panel.at(p.tokens, p.won.mean)).collect();
    canvas.dashed(&points, style.color, 2.0, style.dash);
    let rows = format!("samples.jsonl[suite={suite},arm={}]", arm.name);
    for part in parts {
        let [won, low, high] = [part.won.mean, part.won.low, part.won.high].map(|v| Unit::Share.value(v));
        let label = format!(
            "{}: {won} ({low} to {high}) won at {} tokens (n = {})",
            arm.name,
            plain(part.tokens),
            part.n
        );
        canvas.mark(&label, &rows, |c| {
            let x = panel.x.at(part.tokens);
            panel.interval_up(c, (part.won.low, part.won.high), x, style.color);
            c.marker((x, panel.y.at(part.won.mean)), style.marker, 5.0, style.color);
        });
    }
}
