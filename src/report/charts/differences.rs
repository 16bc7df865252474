//! Differences between arms as a forest plot, a block a judged metric: the rows of `comparisons.csv`.

use super::{Chart, Drawing, Section, file_part};
use crate::base::error::Result;
use crate::record::{ComparisonRow, Verdict};
use crate::report::content;
use crate::report::format::{Unit, capitalised, p_value};
use crate::report::svg::axis::Scale;
use crate::report::svg::canvas::{Canvas, TextSpec, text_width};
use crate::report::svg::palette::{AXIS, BAND, INK, MUTED, Marker, PAPER};
use crate::report::svg::panel::{Frame, LABEL, Panel, TICK, fitted, heading, wrapped};
use crate::report::view::{Metric, View};

pub const CHART: Chart = Chart { name: "differences", draw };

const WIDTH: f64 = 760.0;
const ROW: f64 = 25.0;
/// Room for axis and name around the rows of a block.
const AROUND: f64 = 74.0;
/// The columns of text at the right: estimate, p, verdict.
const TEXT: f64 = 308.0;

type Rows<'a> = Vec<(usize, &'a ComparisonRow)>;

fn draw(view: &View<'_>) -> Result<Vec<Drawing>> {
    view.suites().iter().filter_map(|suite| draw_suite(view, suite).transpose()).collect()
}

fn draw_suite(view: &View<'_>, suite: &str) -> Result<Option<Drawing>> {
    let metrics = view.judged(suite).into_iter();
    let found = metrics.map(|m| (view.comparisons(suite, &m.name), m));
    let found = found.filter(|(rows, _)| rows.iter().any(|(_, c)| is_measured(c)));
    let all_flat = |rows: &Rows<'_>| rows.iter().filter(|(_, c)| is_measured(c)).all(|(_, c)| is_flat(c));
    let (flat, blocks): (Vec<_>, Vec<_>) = found.partition(|(rows, _)| all_flat(rows));
    if blocks.is_empty() {
        return Ok(None);
    }
    let height: f64 = blocks.iter().map(|(rows, _)| AROUND + ROW * rows.len() as f64).sum();
    let pairs = blocks.iter().flat_map(|(rows, _)| rows.iter().map(|(_, c)| text_width(&pair(c), LABEL)));
    let left = pairs.fold(60.0, f64::max).min(200.0) + 28.0;
    let title = format!("Differences on {suite}");
    let confidence = view.confidence();
    let flat: Vec<_> = flat.iter().map(|(_, m)| crate::report::format::metric(&m.name)).collect();
    let left_out = match flat.as_slice() {
        [] => String::new(),
        flat => format!(" Not drawn, since all arms are alike: {}.", flat.join(", ")),
    };
    let shading = "grey band: counts as equivalent";
    let about = format!(
        "First arm minus second, with {confidence} interval (not corrected for their number); {shading}.{left_out}"
    );
    let lines = wrapped(&about, WIDTH - 32.0, LABEL).len();
    let under = 62.0 + 16.0 * (lines - 1) as f64;
    let mut canvas = Canvas::new(WIDTH, under + height);
    heading(&mut canvas, &title, &about);
    let all: Vec<&ComparisonRow> = blocks.iter().flat_map(|(rows, _)| rows.iter().map(|(_, c)| *c)).collect();
    canvas.says(&content::verdicts_in_words(view, &all));
    let mut top = under + 20.0;
    for (rows, metric) in &blocks {
        let frame = Frame { left, top, right: WIDTH - TEXT, bottom: top + ROW * rows.len() as f64 };
        block(&mut canvas, view, metric, rows, frame);
        top = frame.bottom + AROUND;
    }
    let even = match blocks.iter().any(|(_, metric)| view.even_base(metric)) {
        true => " On what is read off the implicit reward base stands at even odds by definition.",
        false => "",
    };
    let caption = format!(
        "{title}: paired difference (first arm minus second) with its {confidence} interval, p after Holm over \
         the comparisons of its family (primary metrics, against base, secondary), and the verdict seen from the first arm. \
         Intervals are not corrected for the number of comparisons, p and verdicts are: an interval without 0 can be \
         undecided. In rows called equivalent p is that of the equivalence test.{even} {} The grey band is the \
         equivalence margin of the plan. Marker: filled triangle up, better (in the colour of the winner); \
         triangle down, worse; square, equivalent; ring, undecided; cross, invalid.{left_out}",
        sample(&blocks)
    );
    let (svg, marks) = canvas.finish(&title, &caption)?;
    let name = format!("differences-{}", file_part(suite));
    Ok(Some(Drawing { name, title, caption, section: Section::Suite(suite.to_owned()), svg, marks }))
}

/// "Each from 3 seeds and 400 examples in 400 clusters."
fn sample(blocks: &[(Rows<'_>, Metric)]) -> String {
    let rows = || blocks.iter().flat_map(|(rows, _)| rows.iter().map(|(_, c)| *c)).filter(|c| is_measured(c));
    let range = |value: fn(&ComparisonRow) -> u64| {
        let (a, b) = (rows().map(value).min().unwrap_or(0), rows().map(value).max().unwrap_or(0));
        if a == b { a.to_string() } else { format!("{a} to {b}") }
    };
    let (seeds, examples, clusters) = (range(|c| c.seeds), range(|c| c.examples), range(|c| c.clusters));
    format!("Each from {seeds} seeds and n = {examples} examples in {clusters} clusters (prompts).")
}

/// Both arms have scores.
fn is_measured(c: &ComparisonRow) -> bool {
    c.difference.is_finite()
}

/// No difference to speak of: a picture of it would show nothing.
fn is_flat(c: &ComparisonRow) -> bool {
    c.low.abs().max(c.high.abs()) <= 0.05 * c.margin
}

/// Width of the names of a pair.
const PAIR: f64 = 200.0;

/// `kto − dpo`; where that does not fit, the two names are cut, each to its half or to what the other leaves.
fn pair(c: &ComparisonRow) -> String {
    let room = PAIR - text_width(" − ", LABEL);
    let left = |other: &str| (room - text_width(other, LABEL)).max(room / 2.0);
    let (a, b) = (fitted(&c.arm_a, left(&c.arm_b), LABEL), fitted(&c.arm_b, left(&c.arm_a), LABEL));
    format!("{a} − {b}")
}

fn block(canvas: &mut Canvas, view: &View<'_>, metric: &Metric, rows: &Rows<'_>, frame: Frame) {
    let margin = rows.iter().map(|(_, c)| c.margin).fold(0.0, f64::max);
    let reach = |c: &ComparisonRow| metric.unit.reach(c.low, c.high);
    let ends = rows.iter().flat_map(|(_, c)| {
        let (low, high) = reach(c);
        [low, high, c.difference]
    });
    let x = Scale::over(ends.chain([0.0, margin, -margin]));
    let panel = Panel::new(frame, x, Scale::unit());
    canvas.text(&capitalised(&metric.label()), (16.0, frame.top - 14.0), TextSpec::new(13.0));
    let (a, b) = (panel.x.at(-margin), panel.x.at(margin));
    canvas.rect((a, frame.top), (b, frame.bottom), BAND);
    let unit = match (metric.unit, metric.unit_name.as_str()) {
        (Unit::Share, _) => "difference (percentage points)".to_owned(),
        (Unit::Plain, "") => "difference".to_owned(),
        (Unit::Plain, unit) => format!("difference ({unit})"),
    };
    panel.x_axis(canvas, &unit, metric.difference_ticks());
    canvas.line(&[(panel.x.at(0.0), frame.top), (panel.x.at(0.0), frame.bottom)], AXIS, 1.6);
    let columns = [frame.right + 16.0, frame.right + 184.0, WIDTH - 16.0];
    let head = TextSpec::new(TICK).color(MUTED);
    canvas.text(&format!("estimate [{}]", view.confidence()), (columns[0], frame.top - 10.0), head);
    canvas.text("p (Holm)", (columns[1] + 18.0, frame.top - 10.0), head.centre());
    canvas.text("verdict", (columns[2], frame.top - 10.0), head.right());
    for (i, (line, c)) in rows.iter().enumerate() {
        let y = frame.top + (i as f64 + 0.5) * ROW;
        canvas.text(&pair(c), (frame.left - 12.0, y), TextSpec::new(LABEL).right());
        canvas.mark(&c.words, &format!("comparisons.csv:{line}"), |canvas| {
            if is_measured(c) {
                panel.interval(canvas, reach(c), y, INK);
                verdict_mark(canvas, view, c, (panel.x.at(c.difference), y));
            }
            let unit = metric.unit;
            let interval = unit.interval(c.low, c.high);
            let interval = interval.map_or("[none]".to_owned(), |(low, high)| format!("[{low}, {high}]"));
            let estimate = format!("{} {interval}", unit.bound(c.difference));
            canvas.text(&estimate, (columns[0], y), TextSpec::new(LABEL));
            canvas.text(
                &p_value(content::p_of_verdict(view, c)),
                (columns[1] + 18.0, y),
                TextSpec::new(LABEL).centre(),
            );
            canvas.text(verdict_word(c.verdict), (columns[2], y), TextSpec::new(LABEL).right());
        });
    }
}

pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Equivalent => "equivalent",
        Verdict::Undecided => "undecided",
        Verdict::Invalid => "invalid",
    }
}

fn verdict_mark(canvas: &mut Canvas, view: &View<'_>, c: &ComparisonRow, at: (f64, f64)) {
    let color = |name: &str| view.arm(name).map_or(INK, |a| a.style.color);
    match c.verdict {
        Verdict::Better => canvas.marker(at, Marker::Triangle, 6.0, color(&c.arm_a)),
        Verdict::Worse => canvas.marker(at, Marker::TriangleDown, 6.0, color(&c.arm_b)),
        Verdict::Equivalent => canvas.marker(at, Marker::Square, 5.5, MUTED),
        Verdict::Undecided => {
            canvas.circle(at, 6.0, PAPER);
            canvas.ring(at, 5.0, INK, 1.6);
        }
        Verdict::Invalid => canvas.marker(at, Marker::Cross, 5.0, INK),
    }
}
