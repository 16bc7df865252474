//! `kto-eval winrate FILE`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::output::{print, print_json, table};
use crate::base::error::{Context, Result, ensure};
use crate::base::exit::Exit;
use crate::stats::winrate::{LengthControl, Strength, WinRates, parse, winrate_file};

/// Reads JSON lines of pairwise judgments, or AlpacaEval's annotations.json.
#[derive(Debug, Args)]
pub struct Options {
    /// File of judgments
    file: PathBuf,
    /// Resamples of the intervals of the Bradley-Terry strengths
    #[arg(long, default_value_t = 1000, value_name = "N")]
    resamples: usize,
    /// Intervals cover 1 − α
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    ensure!(options.alpha > 0.0 && options.alpha < 1.0, "--alpha is {}; it must be in (0, 1)", options.alpha);
    let name = options.file.display();
    let text = std::fs::read_to_string(&options.file).with_context(|| format!("reading {name}"))?;
    let judgments = parse(&text).with_context(|| name.to_string())?;
    ensure!(!judgments.is_empty(), "{name}: no judgment");
    let seed = common.seed.first().copied().unwrap_or(0);
    let (rates, strengths) = winrate_file(&judgments, options.resamples, options.alpha, seed);
    if common.json {
        print_json(&json!({
            "win_rates": rates.iter().map(as_json).collect::<Vec<_>>(),
            "strengths": strengths.iter().map(|s| json!({
                "name": s.name, "strength": s.strength, "low": s.interval.low, "high": s.interval.high,
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        print(&text_of(&rates, &strengths))?;
    }
    Ok(Exit::Done)
}

fn as_json(rates: &WinRates) -> serde_json::Value {
    let WinRates { candidate, baseline, raw, length_controlled } = rates;
    json!({
        "candidate": candidate,
        "baseline": baseline,
        "win_rate": raw.rate,
        "standard_error": raw.standard_error,
        "wins": raw.wins,
        "losses": raw.losses,
        "ties": raw.ties,
        "length_controlled": length_controlled.map(|l: LengthControl| l.rate),
    })
}

fn text_of(rates: &[WinRates], strengths: &[Strength]) -> String {
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let cells = |row: &[&str]| row.iter().map(|&c| c.to_owned()).collect::<Vec<String>>();
    let mut rows =
        vec![cells(&["candidate", "baseline", "win rate", "s.e.", "length-controlled", "wins/losses/ties"])];
    for r in rates {
        rows.push(vec![
            r.candidate.clone(),
            r.baseline.clone(),
            percent(r.raw.rate),
            percent(r.raw.standard_error),
            r.length_controlled.map_or_else(|| "n/a".to_owned(), |l| percent(l.rate)),
            format!("{}/{}/{}", r.raw.wins, r.raw.losses, r.raw.ties),
        ]);
    }
    let mut out = table(&rows);
    let mut rows = vec![cells(&["contestant", "Bradley-Terry", "interval"])];
    for s in strengths {
        let interval = format!("{:.3} to {:.3}", s.interval.low, s.interval.high);
        rows.push(vec![s.name.clone(), format!("{:.3}", s.strength), interval]);
    }
    out += &("\n".to_owned() + &table(&rows));
    out
}
