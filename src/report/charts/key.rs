//! The key: each arm with its marker, for charts where labels cannot stand at the marks.

use crate::report::svg::canvas::{Canvas, TextSpec, text_width};
use crate::report::svg::palette::PAPER;
use crate::report::svg::panel::LABEL;
use crate::report::view::{Arm, ArmScore};

/// Draws a row of markers and names from x = 16; returns the height it takes.
pub fn draw<'a>(canvas: &mut Canvas, y: f64, arms: impl Iterator<Item = &'a Arm>) -> f64 {
    let (mut x, mut line) = (22.0, y + 8.0);
    for arm in arms {
        let width = 14.0 + text_width(&arm.name, LABEL) + 22.0;
        if x + width > canvas.width {
            (x, line) = (22.0, line + 18.0);
        }
        canvas.marker((x, line), arm.style.marker, 5.0, arm.style.color);
        canvas.text(&arm.name, (x + 11.0, line), TextSpec::new(LABEL));
        x += width;
    }
    line - y + 12.0
}

/// A seed's value: a small dot, lighter than the mean.
pub fn seed_dot(canvas: &mut Canvas, at: (f64, f64), arm: &Arm) {
    canvas.circle(at, 3.0, PAPER);
    canvas.ring(at, 2.4, arm.style.color, 1.2);
}

/// "n = 400", or a range where suites cut runs short.
pub fn examples<'a>(scores: impl Iterator<Item = &'a ArmScore<'a>>) -> String {
    let counts: Vec<_> = scores.map(|s| s.examples).collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    match (least, most) {
        (Some(a), Some(b)) if a == b => format!("n = {a}"),
        (Some(a), Some(b)) => format!("n = {a} to {b}"),
        _ => "n = 0".to_owned(),
    }
}
