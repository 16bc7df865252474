//! A panel: two scales, its axes, and labels that keep clear of each other.

use super::axis::{Scale, Ticks};
use super::canvas::{Canvas, Point, TextSpec, text_width};
use super::palette::{AXIS, GRID, INK, MUTED};

pub const TICK: f64 = 11.0;
pub const LABEL: f64 = 12.0;
pub const NAME: f64 = 13.0;
/// How far a tick's label may reach to the right of its panel.
const BEYOND: f64 = 12.0;

/// The plotting area of a panel in px.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

pub struct Panel {
    pub frame: Frame,
    pub x: Scale,
    pub y: Scale,
}

impl Panel {
    pub fn new(frame: Frame, x: Scale, y: Scale) -> Self {
        Self { frame, x: x.px(frame.left, frame.right), y: y.px(frame.bottom, frame.top) }
    }

    pub fn at(&self, x: f64, y: f64) -> Point {
        (self.x.at(x), self.y.at(y))
    }

    /// The panel's name, left-aligned above it, on as many lines as it takes.
    pub fn name(&self, canvas: &mut Canvas, text: &str) {
        let lines = wrapped(text, self.frame.right - self.frame.left, NAME);
        for (i, line) in lines.iter().rev().enumerate() {
            let y = self.frame.top - 13.0 - 16.0 * i as f64;
            canvas.text(line, (self.frame.left, y), TextSpec::new(NAME));
        }
    }

    /// Vertical grid lines, tick labels and the axis label below.
    pub fn x_axis(&self, canvas: &mut Canvas, label: &str, style: Ticks) {
        let Frame { left, top, right, bottom } = self.frame;
        let count = ((right - left) / 56.0).clamp(2.0, 9.0) as usize;
        let mut free_from = f64::NEG_INFINITY;
        for (value, text) in self.x.ticks(count, style) {
            let x = self.x.at(value);
            canvas.line(&[(x, top), (x, bottom)], GRID, 1.0);
            let half = text_width(&text, TICK) / 2.0;
            // Never far beyond the panel: another one may stand beside it.
            let at = x.min(right + BEYOND - half);
            if at - half > free_from {
                canvas.text(&text, (at, bottom + 12.0), TextSpec::new(TICK).color(MUTED).centre());
                free_from = at + half + 6.0;
            }
        }
        canvas.line(&[(left, bottom), (right, bottom)], AXIS, 1.0);
        canvas.text(label, ((left + right) / 2.0, bottom + 29.0), TextSpec::new(LABEL).color(MUTED).centre());
    }

    /// Horizontal grid lines, tick labels and the upright axis label at the left.
    pub fn y_axis(&self, canvas: &mut Canvas, label: &str, style: Ticks) {
        let Frame { left, top, right, bottom } = self.frame;
        let count = ((bottom - top) / 38.0).clamp(2.0, 8.0) as usize;
        let mut widest: f64 = 0.0;
        for (value, text) in self.y.ticks(count, style) {
            let y = self.y.at(value);
            canvas.line(&[(left, y), (right, y)], GRID, 1.0);
            canvas.text(&text, (left - 6.0, y), TextSpec::new(TICK).color(MUTED).right());
            widest = widest.max(text_width(&text, TICK));
        }
        canvas.line(&[(left, top), (left, bottom)], AXIS, 1.0);
        let at = (left - 6.0 - widest - 12.0, (top + bottom) / 2.0);
        canvas.text(label, at, TextSpec::new(LABEL).color(MUTED).centre().upright());
    }

    /// A horizontal interval with caps around `x` positions `low` to `high` at height `y` px.
    pub fn interval(
        &self,
        canvas: &mut Canvas,
        (low, high): (f64, f64),
        y: f64,
        style: impl plotters::style::Color,
    ) {
        let (a, b) = (self.x.at(low), self.x.at(high));
        let style = style.to_rgba();
        canvas.line(&[(a, y), (b, y)], style, 2.0);
        canvas.line(&[(a, y - 4.0), (a, y + 4.0)], style, 1.4);
        canvas.line(&[(b, y - 4.0), (b, y + 4.0)], style, 1.4);
    }

    /// A vertical interval with caps at `x` px.
    pub fn interval_up(
        &self,
        canvas: &mut Canvas,
        (low, high): (f64, f64),
        x: f64,
        style: impl plotters::style::Color,
    ) {
        let (a, b) = (self.y.at(low), self.y.at(high));
        let style = style.to_rgba();
        canvas.line(&[(x, a), (x, b)], style, 1.8);
        canvas.line(&[(x - 4.0, a), (x + 4.0, a)], style, 1.4);
        canvas.line(&[(x - 4.0, b), (x + 4.0, b)], style, 1.4);
    }
}

/// Heights for labels that want to stand at `wanted`, at least `gap` apart and inside `low` to `high`;
/// in the order given.
pub fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]).then(a.cmp(b)));
    let mut placed = wanted.to_vec();
    for _ in 0..200 {
        let mut moved = false;
        for pair in order.windows(2) {
            let lack = gap - (placed[pair[1]] - placed[pair[0]]);
            if lack > 1e-3 {
                placed[pair[0]] -= lack / 2.0;
                placed[pair[1]] += lack / 2.0;
                moved = true;
            }
        }
        for p in &mut placed {
            *p = p.clamp(low, high.max(low));
        }
        if !moved {
            break;
        }
    }
    placed
}

/// Title and subtitle at the top of a chart; returns the height that they take.
pub fn heading(canvas: &mut Canvas, title: &str, subtitle: &str) -> f64 {
    canvas.text(title, (16.0, 22.0), TextSpec::new(16.0).color(INK));
    let mut y = 42.0;
    for line in wrapped(subtitle, canvas.width - 32.0, LABEL) {
        canvas.text(&line, (16.0, y), TextSpec::new(LABEL).color(MUTED));
        y += 16.0;
    }
    y
}

/// `text` in lines of at most `width` px.
pub fn wrapped(text: &str, width: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text` cut to `width` px, with an ellipsis where something is missing: at the end, or, of a swept arm's name
/// (`kto@learning_rate=0.0006`), before the value that tells it from the others.
pub fn fitted(text: &str, width: f64, size: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let end = text.rfind('=').filter(|_| text.contains('@')).map_or("", |at| &text[at..]);
    let mut kept = text[..text.len() - end.len()].to_owned();
    while kept.pop().is_some() {
        let candidate = format!("{kept}…{end}");
        if text_width(&candidate, size) <= width {
            return candidate;
        }
    }
    "…".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_clear_of_each_other() {
        let placed = spread(&[50.0, 51.0, 52.0, 90.0], 10.0, 0.0, 100.0);
        assert!(placed[1] - placed[0] > 9.9 && placed[2] - placed[1] > 9.9);
        assert_eq!(placed[3], 90.0);
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        let text = fitted("a-very-long-arm-name-that-cannot-fit", 80.0, 12.0);
        assert!(text.ends_with('…') && text_width(&text, 12.0) <= 80.0);
        assert_eq!(fitted("kto", 80.0, 12.0), "kto");
        let swept = fitted("kto-rate@learning_rate=0.0006", 130.0, 12.0);
        assert!(swept.starts_with("kto-rate@") && swept.ends_with("…=0.0006"), "{swept}");
    }
}
