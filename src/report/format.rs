//! Numbers and names as people read them.

pub use crate::record::metric_words as metric;

/// How values of a metric are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share in [0, 1], written as per cent; differences in points.
    Share,
    /// Anything else, with the name of its unit (may be empty).
    Plain,
}

impl Unit {
    /// From the `unit` column of `scores.csv`; where that is empty, from the metric's name.
    pub fn of(unit: &str, metric: &str) -> Self {
        const SHARES: [&str; 4] = ["share", "fraction", "probability", "proportion"];
        let named = || ["accuracy", "win_rate", "finished"].iter().any(|part| metric.contains(part));
        if SHARES.contains(&unit) || (unit.is_empty() && named()) { Self::Share } else { Self::Plain }
    }

    pub fn value(self, v: f64) -> String {
        match self {
            Self::Share => format!("{} %", decimals(100.0 * v, 1)),
            Self::Plain => plain(v),
        }
    }

    /// A difference, with its sign; shares in percentage points.
    pub fn difference(self, v: f64) -> String {
        match self {
            Self::Share => format!("{} pts", signed(100.0 * v, 1)),
            Self::Plain => signed(v, places(v)),
        }
    }

    /// The same without the unit, for the bounds of an interval.
    pub fn bound(self, v: f64) -> String {
        match self {
            Self::Share => signed(100.0 * v, 1),
            Self::Plain => signed(v, places(v)),
        }
    }

    /// The interval of a difference, a share's as far as shares reach; of one that did not vary there is none.
    pub fn interval(self, low: f64, high: f64) -> Option<(String, String)> {
        let (low, high) = self.reach(low, high);
        let alike = high - low <= 1e-12 * low.abs();
        (!alike).then(|| (self.bound(low), self.bound(high)))
    }

    /// `−1.2 to 3.4`, or that there is none.
    pub fn interval_words(self, low: f64, high: f64) -> String {
        self.interval(low, high)
            .map_or_else(|| "none: all alike".to_owned(), |(low, high)| format!("{low} to {high}"))
    }

    /// As far as a difference in this unit can reach.
    pub fn reach(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            // NaN stays NaN.
            Self::Share => (low.clamp(-1.0, 1.0), high.clamp(-1.0, 1.0)),
            Self::Plain => (low, high),
        }
    }

    /// A spread (standard error, margin): no sign.
    pub fn spread(self, v: f64) -> String {
        match self {
            Self::Share => decimals(100.0 * v, if v.abs() < 0.0005 && v != 0.0 { 2 } else { 1 }),
            Self::Plain => fine(v),
        }
    }
}

/// One significant digit of what three decimals would round away: a spread of 0.00032 is 0.0003, not 0.000.
fn fine(v: f64) -> String {
    let digits = (-v.abs().log10().floor()).clamp(3.0, 6.0);
    if v.abs() < 0.0005 && v != 0.0 { decimals(v, digits as usize) } else { plain(v) }
}

/// From here on a power of ten is written.
const HUGE: f64 = 1e9;

/// Fixed decimals with a true minus sign; never "−0".
pub fn decimals(v: f64, places: usize) -> String {
    if !v.is_finite() {
        return "n/a".to_owned();
    }
    // A perplexity of 1e30 does not carry thirty significant digits.
    let text = if v.abs() < HUGE { format!("{v:.places$}") } else { format!("{v:.2e}") };
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

pub fn signed(v: f64, places: usize) -> String {
    let text = decimals(v, places);
    let zero = text.chars().all(|c| c == '0' || c == '.');
    if v > 0.0 && !zero { format!("+{text}") } else { text }
}

/// Three significant digits for values of everyday size.
pub fn plain(v: f64) -> String {
    decimals(v, places(v))
}

fn places(v: f64) -> usize {
    match v.abs() {
        a if a >= 100.0 || a == 0.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        _ => 3,
    }
}

/// With an SI prefix and three significant digits: `1.25 M`, `830`, `3.1 T`; small amounts as `2.78e-5`.
pub fn si(v: f64) -> String {
    if v != 0.0 && v.abs() < 0.00995 {
        return with_power(v);
    }
    // Beyond the last prefix.
    if v.abs() >= 1e21 {
        return with_power(v);
    }
    const PREFIXES: [(f64, &str); 6] =
        [(1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    // 999,950 would be written "1000 k": such values take the next prefix.
    let found = PREFIXES.iter().find(|(scale, _)| v.abs() >= scale * 0.9995);
    match found {
        Some((scale, prefix)) => format!("{}{prefix}", trimmed(v / scale)),
        None => trimmed(v),
    }
}

/// Three significant digits with a power of ten: what a second of a cheap machine costs.
fn with_power(v: f64) -> String {
    let text = format!("{v:.2e}");
    match text.split_once('e') {
        Some((digits, power)) => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        None => text,
    }
}

/// Three significant digits, zeros after the point dropped.
fn trimmed(v: f64) -> String {
    let text = plain(v);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A p value: never "0.00", and with three decimals where levels of significance lie.
pub fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => "n/a".to_owned(),
        p if p < 0.001 => "< 0.001".to_owned(),
        p if p < 0.0995 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// First letter in upper case.
pub fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// Line numbers as compact ranges: `3-5,9`.
pub fn lines(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, end)) if n == *end + 1 => *end = n,
            _ => parts.push((n, n)),
        }
    }
    let write = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(write).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(Unit::Share.value(0.6124), "61.2 %");
        assert_eq!(Unit::Share.difference(-0.0213), "−2.1 pts");
        assert_eq!(signed(-0.0001, 2), "0.00");
        assert_eq!(si(1_250_000.0), "1.25 M");
        assert_eq!(si(999_960.0), "1 M");
        assert_eq!(si(830.0), "830");
        assert_eq!([si(2.778e-5), si(3.0 * 1e-5), si(0.0)], ["2.78e-5", "3e-5", "0"]);
        assert_eq!(plain(0.01234), "0.012");
        assert_eq!([plain(-2.5e30), plain(123_456.0), si(2.5e30)], ["−2.50e30", "123456", "2.5e30"]);
        assert_eq!(decimals(f64::NAN, 2), "n/a");
        assert_eq!([Unit::Plain.spread(0.000_321), Unit::Plain.spread(0.0072)], ["0.0003", "0.007"]);
        assert_eq!(
            [Unit::Plain.spread(0.0), Unit::Share.spread(0.0), Unit::Share.spread(0.0002)],
            ["0", "0.0", "0.02"]
        );
        assert_eq!(p_value(0.00001), "< 0.001");
        assert_eq!([p_value(0.0213), p_value(0.0496), p_value(0.123)], ["0.021", "0.050", "0.12"]);
    }

    #[test]
    fn line_numbers_are_written_as_ranges() {
        assert_eq!(lines(&[3, 4, 5, 9]), "3-5,9");
        assert_eq!(lines(&[]), "");
    }
}
