//! Colours, markers and dashes. The Okabe-Ito colours are told apart by the colour-blind; in greyscale the
//! marker shapes, dash patterns and direct labels carry the difference.

use plotters::style::RGBColor;

pub const INK: RGBColor = RGBColor(0x1A, 0x1A, 0x1A);
pub const MUTED: RGBColor = RGBColor(0x5A, 0x5F, 0x66);
pub const AXIS: RGBColor = RGBColor(0x8A, 0x90, 0x98);
pub const GRID: RGBColor = RGBColor(0xE6, 0xE8, 0xEB);
pub const BAND: RGBColor = RGBColor(0xF1, 0xF2, 0xF4);
pub const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

/// The starting checkpoint: not a contestant, so grey.
const BASE: RGBColor = RGBColor(0x6B, 0x6F, 0x75);

/// Okabe & Ito, "Color Universal Design" (2008), without yellow, which vanishes on white.
const ARMS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
    Cross,
    Plus,
}

const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::TriangleDown, Marker::Plus];

/// `stroke-dasharray` in px; empty: solid.
const DASHES: [&str; 6] = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];

/// How an arm is drawn, the same in every chart of a report.
#[derive(Clone, Copy, Debug)]
pub struct ArmStyle {
    pub color: RGBColor,
    pub marker: Marker,
    pub dash: &'static str,
}

impl ArmStyle {
    pub fn base() -> Self {
        Self { color: BASE, marker: Marker::Cross, dash: "1 3" }
    }

    /// The i-th arm of the plan. Beyond six arms colours repeat with other markers.
    pub fn nth(i: usize) -> Self {
        let shift = i / ARMS.len();
        Self {
            color: ARMS[i % ARMS.len()],
            marker: MARKERS[(i + shift) % MARKERS.len()],
            dash: DASHES[(i + shift) % DASHES.len()],
        }
    }
}
