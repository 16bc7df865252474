//! Scales and ticks.

use crate::report::format::{decimals, si};

/// How the ticks of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// Shares as per cent.
    Percent,
    /// Shares as signed percentage points.
    Points,
    Plain,
    Signed,
    /// With SI prefixes.
    Si,
}

impl Ticks {
    fn write(self, v: f64, step: f64) -> String {
        match self {
            Self::Percent => format!("{} %", decimals(100.0 * v, places(100.0 * step))),
            Self::Points => sign(v, step, decimals(100.0 * v, places(100.0 * step))),
            Self::Plain => decimals(v, places(step)),
            Self::Signed => sign(v, step, decimals(v, places(step))),
            Self::Si => si(v),
        }
    }
}

fn sign(v: f64, step: f64, text: String) -> String {
    if v > step / 2.0 { format!("+{text}") } else { text }
}

/// Decimals that a multiple of `step` needs.
fn places(step: f64) -> usize {
    (0..6).find(|p| ((step * 10f64.powi(*p)).round() - step * 10f64.powi(*p)).abs() < 1e-6).unwrap_or(6)
        as usize
}

/// From values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    pub log: bool,
    /// Pixels of `low` and `high`.
    pub from: f64,
    pub to: f64,
}

impl Scale {
    /// Covers `values` (non-finite ones are passed over) with some room on both sides.
    pub fn over(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.into_iter().filter(|v| v.is_finite()) {
            (low, high) = (low.min(v), high.max(v));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = match high - low {
            d if d > 0.0 => 0.06 * d,
            _ if high != 0.0 => 0.1 * high.abs(),
            _ => 1.0,
        };
        Self { low: low - room, high: high + room, log: false, from: 0.0, to: 1.0 }
    }

    /// Logarithmic where the values (all positive) span more than a factor of 8.
    pub fn over_amounts(values: &[f64]) -> Self {
        let linear = Self::over(values.iter().copied());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        if least > 0.0 && most > 8.0 * least {
            return Self { low: least / 1.5, high: most * 1.5, log: true, ..linear };
        }
        Self { low: linear.low.max(0.0), ..linear }
    }

    /// From 0, with room at the right for names: amounts whose ratios are to be seen.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max);
        Self { low: 0.0, high: if most > 0.0 { 1.22 * most } else { 1.0 }, log: false, from: 0.0, to: 1.0 }
    }

    /// 0 to 1, for directions without a scale of their own (rows of arms).
    pub fn unit() -> Self {
        Self { low: 0.0, high: 1.0, log: false, from: 0.0, to: 1.0 }
    }

    /// Does not go beyond `low` to `high` (a share ends at 0 and 1), where any value lies there.
    pub fn within(self, low: f64, high: f64) -> Self {
        let (low, high) = (self.low.max(low), self.high.min(high));
        if low < high { Self { low, high, ..self } } else { self }
    }

    pub fn px(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// Values outside the scale are drawn at its ends.
    pub fn at(&self, v: f64) -> f64 {
        let v = v.max(self.low).min(self.high);
        let share = if self.log {
            (v / self.low).ln() / (self.high / self.low).ln()
        } else {
            (v - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Values at round numbers with their labels, about `count` of them.
    pub fn ticks(&self, count: usize, style: Ticks) -> Vec<(f64, String)> {
        if self.log {
            return self.log_ticks(style);
        }
        let width = self.high - self.low;
        let raw = width / count.max(1) as f64;
        let power = 10f64.powf(raw.log10().floor());
        // The widest steps that still give about three quarters of the ticks asked for, and two at least.
        let fewest = (0.75 * count as f64).max(2.0);
        let steps = [10.0, 5.0, 2.5, 2.0, 1.0, 0.5].map(|m| m * power);
        let step = steps.into_iter().find(|s| width / s >= fewest).unwrap_or(raw);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).map(|v| (v, style.write(v, step))).collect()
    }

    fn log_ticks(&self, style: Ticks) -> Vec<(f64, String)> {
        let steps: &[f64] = if self.high / self.low < 50.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
        let inside = all.filter(|v| *v >= self.low * 0.999 && *v <= self.high * 1.001);
        inside.map(|v| (v, style.write(v, 10f64.powf(v.log10().floor())))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale { low: 0.43, high: 0.71, log: false, from: 0.0, to: 100.0 };
        let ticks = scale.ticks(4, Ticks::Percent);
        let labels: Vec<_> = ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(labels, ["45 %", "50 %", "55 %", "60 %", "65 %", "70 %"]);
    }

    #[test]
    fn values_map_to_the_ends_of_the_scale() {
        let scale = Scale { low: 1.0, high: 100.0, log: true, from: 10.0, to: 30.0 };
        assert!((scale.at(10.0) - 20.0).abs() < 1e-9);
        assert_eq!(scale.at(1e9), 30.0);
    }

    #[test]
    fn a_single_value_still_makes_a_scale() {
        let scale = Scale::over([0.5]);
        assert!(scale.low < 0.5 && scale.high > 0.5);
        assert!(Scale::over([f64::NAN]).ticks(4, Ticks::Plain).len() > 1);
    }

    #[test]
    fn shares_that_are_none_are_drawn_where_they_are() {
        let scale = Scale::over([80.0, 90.0]).within(0.0, 1.0).px(0.0, 1.0);
        assert!(scale.low > 1.0 && scale.at(85.0) == 0.5, "{scale:?}");
    }

    #[test]
    fn amounts_far_apart_take_a_log_scale() {
        assert!(Scale::over_amounts(&[1.0, 100.0]).log);
        assert!(!Scale::over_amounts(&[1.0, 2.0]).log);
        assert!(!Scale::over_amounts(&[0.0, 100.0]).log);
    }
}
