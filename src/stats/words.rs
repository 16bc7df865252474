//! A comparison as a sentence that a person reads.

use super::Interval;
use super::power::Settling;
use crate::record::{Verdict, metric_words};

/// Most prompts that anybody is told to find.
const MOST_PROMPTS: usize = 100_000;

/// What the sentence says.
pub struct Facts<'a> {
    pub a: &'a str,
    pub b: &'a str,
    /// b is the base, which has this metric by definition: its implicit reward is 0.
    pub even: bool,
    pub suite: &'a str,
    pub metric: &'a str,
    pub unit: &'a str,
    pub lower_is_better: bool,
    /// mean_a − mean_b, and its interval.
    pub difference: f64,
    pub interval: Interval,
    /// 0.95 for a 95 % interval.
    pub level: f64,
    pub p_adjusted: f64,
    /// Tests that Holm corrected over.
    pub tests: usize,
    pub margin: f64,
    pub verdict: Verdict,
    pub seeds: usize,
    /// Prompts that both arms answered.
    pub prompts: usize,
    pub dropped: usize,
    pub settling: Option<Settling>,
    pub invalid: Option<&'a str>,
}

/// The base in a sentence on what is read off its implicit reward, which nobody measured: it is 0.
const EVEN: &str = "even odds (base by definition)";

/// `kto beats dpo on hh-harmless (accuracy) by 2.1 points, 95 % interval 0.4 to 3.9, p 0.020 after Holm over 6
/// comparisons`.
///
/// The arm ahead comes first and numbers are its lead, whether higher or lower values are better.
pub fn sentence(f: &Facts) -> String {
    let a_ahead = (f.difference < 0.0) == f.lower_is_better || f.difference == 0.0;
    let b = if f.even { EVEN } else { f.b };
    let (ahead, behind) = if a_ahead { (f.a, b) } else { (b, f.a) };
    let lead = f.difference.abs();
    let Interval { low, high } = reach(f.unit, f.interval);
    let (low, high) = if f.difference < 0.0 { (-high, -low) } else { (low, high) };
    let name = metric_words(f.metric);
    let scale = Scale::of(f.unit, lead.max(high - low), &name);
    let on = format!("on {} ({name}{})", f.suite, if f.lower_is_better { ", lower is better" } else { "" });
    let by = scale.amount(lead);
    let seen = match scale.number(lead) {
        none if none.bytes().all(|b| b == b'0' || b == b'.') => "no difference is seen".to_owned(),
        _ => format!("{ahead} is ahead by {by}"),
    };
    let alike = high - low <= 1e-12 * lead;
    let interval = match alike {
        // Where nothing varied nothing tells how far other prompts would.
        true => format!("alike on all {} prompts (no interval)", f.prompts),
        false => format!("{} % interval {} to {}", percent(f.level), scale.number(low), scale.number(high)),
    };
    // A reader who sees an interval without 0 and no winner must be told why.
    let open = f.verdict == Verdict::Undecided && f.tests > 1 && !alike && !f.interval.contains(0.0);
    let alone = if open { " (not corrected)" } else { "" };
    let evidence =
        format!("{interval}{alone}, {} after Holm over {}", p_value(f.p_adjusted), comparisons(f.tests));
    let margin = format!("± {}", Scale::of(f.unit, f.margin, &name).amount(f.margin));
    let mut text = match f.verdict {
        Verdict::Better | Verdict::Worse if f.interval.low.abs().max(f.interval.high.abs()) < f.margin => {
            format!("{ahead} beats {behind} {on} by {by}, {evidence}; the difference lies within {margin}")
        }
        Verdict::Better | Verdict::Worse => format!("{ahead} beats {behind} {on} by {by}, {evidence}"),
        Verdict::Equivalent => {
            format!("{} and {b} are equivalent {on}: within {margin}; {seen}, {interval}", f.a)
        }
        Verdict::Undecided if f.seeds < 2 => format!(
            "{} against {b} {on} is undecided: one seed cannot show whether the methods differ (run at least 3); \
             of these two checkpoints, {seen}, {interval}{}",
            f.a,
            if alike { "" } else { " over prompts alone" }
        ),
        Verdict::Undecided => format!(
            "{} against {b} {on} is undecided: {seen}, {evidence}; {}",
            f.a,
            f.settling.map_or_else(String::new, |s| remedy(s, f.seeds))
        ),
        Verdict::Invalid => {
            let reason = f.invalid.unwrap_or("the comparison does not stand");
            format!("no verdict on {} and {b} {on}: {reason} ({seen}, {interval})", f.a)
        }
    };
    if f.dropped > 0 {
        text.push_str(&format!(
            "; {} left out (no value in both arms under every seed)",
            examples(f.dropped)
        ));
    }
    text
}

/// What would settle it (a winner, or equivalence), were the difference seen the true one.
fn remedy(s: Settling, seeds: usize) -> String {
    let prompts = s.prompts.filter(|c| *c <= MOST_PROMPTS);
    let far = s.prompts.is_some() && prompts.is_none();
    let what = match (s.seeds, prompts) {
        (Some(n), None) if far => {
            format!(
                "about {n} seeds would settle it (with {seeds} it would take more than {MOST_PROMPTS} prompts)"
            )
        }
        (None, None) if far => {
            format!("it would take more than {MOST_PROMPTS} prompts (more seeds alone do not settle it)")
        }
        (Some(n), Some(c)) => format!("about {n} seeds or {c} prompts would settle it"),
        (Some(n), None) => {
            format!("about {n} seeds would settle it (with {seeds} no number of prompts does)")
        }
        (None, Some(c)) => format!("about {c} prompts would settle it (more seeds alone do not)"),
        (None, None) => "neither more seeds nor more prompts alone would settle it".to_owned(),
    };
    format!("were this the true difference, {what}")
}

/// The interval as far as the unit reaches: a difference of shares lies in ± 1.
fn reach(unit: &str, interval: Interval) -> Interval {
    match unit {
        "share" => Interval { low: interval.low.clamp(-1.0, 1.0), high: interval.high.clamp(-1.0, 1.0) },
        _ => interval,
    }
}

/// How numbers of a unit are written.
struct Scale<'a> {
    factor: f64,
    digits: usize,
    unit: &'a str,
}

impl<'a> Scale<'a> {
    /// Shares are written in points (hundredths). Digits: two significant ones of `size`, one at least.
    /// A unit that the metric's name says already is not said again.
    fn of(unit: &'a str, size: f64, name: &str) -> Self {
        let said = name.contains(&unit.replace('/', " per "));
        let (factor, unit) = match unit {
            "share" => (100.0, "points"),
            _ if said => (1.0, ""),
            unit => (1.0, unit),
        };
        let magnitude = (factor * size).log10().floor();
        let digits = if magnitude.is_finite() { (1.0 - magnitude).clamp(1.0, 8.0) as usize } else { 1 };
        Self { factor, digits, unit }
    }

    /// `2.1 points`, or the bare number where the unit is not said.
    fn amount(&self, x: f64) -> String {
        format!("{} {}", self.number(x), self.unit).trim_end().to_owned()
    }

    fn number(&self, x: f64) -> String {
        let text = format!("{:.*}", self.digits, x * self.factor);
        let zero = text.strip_prefix('-').filter(|t| t.bytes().all(|b| b == b'0' || b == b'.'));
        zero.map_or(text.clone(), str::to_owned).replace('-', "−")
    }
}

fn percent(level: f64) -> String {
    let text = format!("{:.2}", 100.0 * level);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".into(),
        p if p < 0.0995 => format!("p {p:.3}"),
        p => format!("p {p:.2}"),
    }
}

fn comparisons(n: usize) -> String {
    if n == 1 { "1 comparison".into() } else { format!("{n} comparisons") }
}

fn examples(n: usize) -> String {
    if n == 1 { "1 example".into() } else { format!("{n} examples") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            a: "kto",
            b: "dpo",
            even: false,
            suite: "hh-harmless",
            metric: "accuracy",
            unit: "share",
            lower_is_better: false,
            difference: 0.0213,
            interval: Interval { low: 0.004, high: 0.0391 },
            level: 0.95,
            p_adjusted: 0.02,
            tests: 6,
            margin: 0.02,
            verdict: Verdict::Better,
            seeds: 3,
            prompts: 400,
            dropped: 0,
            settling: None,
            invalid: None,
        }
    }

    #[test]
    fn a_win_reads_as_a_sentence() {
        assert_eq!(
            sentence(&facts()),
            "kto beats dpo on hh-harmless (accuracy) by 2.1 points, 95 % interval 0.4 to 3.9, p 0.020 after Holm over \
             6 comparisons"
        );
        let even = Facts { b: "base", even: true, metric: "reward_accuracy", ..facts() };
        assert!(sentence(&even).starts_with(
            "kto beats even odds (base by definition) on hh-harmless (reward accuracy) by 2.1 points"
        ));
        // Just below a level of 0.05 is told from 0.05.
        assert!(sentence(&Facts { p_adjusted: 0.0488, ..facts() }).contains("p 0.049 after"));
    }

    #[test]
    fn where_lower_is_better_the_lower_arm_leads_and_numbers_are_its_lead() {
        let text =
            sentence(&Facts { lower_is_better: true, unit: "bits/byte", verdict: Verdict::Worse, ..facts() });
        assert_eq!(
            text,
            "dpo beats kto on hh-harmless (accuracy, lower is better) by 0.021 bits/byte, 95 % interval 0.004 to \
             0.039, p 0.020 after Holm over 6 comparisons"
        );
    }

    #[test]
    fn undecided_says_what_would_settle_it() {
        let settling = Some(Settling { seeds: Some(7), prompts: None });
        let text = sentence(&Facts {
            difference: -0.004,
            interval: Interval { low: -0.02, high: 0.012 },
            p_adjusted: 0.61,
            verdict: Verdict::Undecided,
            settling,
            ..facts()
        });
        assert_eq!(
            text,
            "kto against dpo on hh-harmless (accuracy) is undecided: dpo is ahead by 0.4 points, 95 % interval −1.2 to \
             2.0, p 0.61 after Holm over 6 comparisons; were this the true difference, about 7 seeds would settle it \
             (with 3 no number of prompts does)"
        );
    }

    #[test]
    fn an_interval_without_zero_and_without_a_winner_is_said_to_be_uncorrected() {
        let open = Facts { p_adjusted: 0.13, verdict: Verdict::Undecided, ..facts() };
        assert!(
            sentence(&open)
                .contains("interval 0.4 to 3.9 (not corrected), p 0.13 after Holm over 6 comparisons")
        );
        assert!(!sentence(&Facts { tests: 1, ..open }).contains("not corrected"));
    }

    #[test]
    fn what_did_not_vary_has_no_interval() {
        let alike = Facts {
            difference: 0.5,
            interval: Interval { low: 0.5, high: 0.5 },
            p_adjusted: 0.094,
            verdict: Verdict::Undecided,
            prompts: 6,
            settling: Some(Settling { seeds: None, prompts: Some(9) }),
            ..facts()
        };
        let text = sentence(&alike);
        let says =
            "kto is ahead by 50.0 points, alike on all 6 prompts (no interval), p 0.094 after Holm over 6";
        assert!(text.contains(says), "{text}");
        let one = sentence(&Facts { seeds: 1, ..alike });
        assert!(one.ends_with("kto is ahead by 50.0 points, alike on all 6 prompts (no interval)"), "{one}");
    }

    #[test]
    fn nothing_is_said_beyond_what_can_be() {
        let wide = Facts {
            difference: 0.333,
            interval: Interval { low: -3.902, high: 4.569 },
            p_adjusted: 0.61,
            verdict: Verdict::Undecided,
            ..facts()
        };
        let said = |seeds, prompts| {
            sentence(&Facts { settling: Some(Settling { seeds, prompts: Some(prompts) }), ..wide })
        };
        let text = said(None, 3_847_820);
        assert!(
            text.contains("interval −100 to 100,") || text.contains("interval −100.0 to 100.0,"),
            "{text}"
        );
        assert!(
            text.ends_with("it would take more than 100000 prompts (more seeds alone do not settle it)"),
            "{text}"
        );
        let text = said(Some(7), 100_001);
        assert!(
            text.ends_with("about 7 seeds would settle it (with 3 it would take more than 100000 prompts)"),
            "{text}"
        );
        assert!(said(Some(7), 100_000).ends_with("about 7 seeds or 100000 prompts would settle it"));
        // Another unit has no such ends.
        assert!(sentence(&Facts { unit: "nats", ..wide }).contains("interval −3.9 to 4.6"));
    }

    #[test]
    fn arms_that_are_level_are_not_called_ahead_and_units_are_not_said_twice() {
        let level = Facts {
            difference: 0.0,
            interval: Interval { low: 0.0, high: 0.0 },
            verdict: Verdict::Equivalent,
            metric: "unfinished",
            ..facts()
        };
        assert_eq!(
            sentence(&level),
            "kto and dpo are equivalent on hh-harmless (unfinished samples): within ± 2.0 points; no difference is \
             seen, alike on all 400 prompts (no interval)"
        );
        let reward = Facts { metric: "gold_reward", unit: "reward", ..facts() };
        assert!(sentence(&reward).starts_with("kto beats dpo on hh-harmless (gold reward) by 0.021, 95 %"));
    }
}
