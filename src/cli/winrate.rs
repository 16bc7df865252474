//! `kto-eval winrate FILE`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::output::{print, print_json, table};
use crate::base::error::{Context, Result, ensure};
use crate::base::exit::Exit;
use crate::data::read_text;
use crate::launch;
use crate::stats::winrate::{LengthControl, Parsed, Strength, WinRates, matrix, parse, texts, winrate_file};

/// Reads JSON lines of pairwise judgments, or AlpacaEval's annotations.json; with --judge-reward the texts in such a
/// file are judged anew.
#[derive(Debug, Args)]
pub struct Options {
    /// File of judgments, plain or packed with gzip
    file: PathBuf,
    /// Suite whose judgments are rated; needed where the file's rows name several
    #[arg(long, value_name = "NAME", conflicts_with = "judge_reward")]
    suite: Option<String>,
    /// Resamples of the intervals of the Bradley-Terry strengths
    #[arg(long, default_value_t = 1000, value_name = "N")]
    resamples: usize,
    /// Intervals cover 1 − α
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Judge the file's texts by this sequence classifier with one label, a hub id or a directory
    #[arg(long, value_name = "MODEL")]
    judge_reward: Option<String>,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let judged: &[&str] = if options.judge_reward.is_some() { &["--device", "--threads"] } else { &[] };
    common.only("winrate", &[&["--seed", "--json"], judged].concat())?;
    ensure!(options.alpha > 0.0 && options.alpha < 1.0, "--alpha is {}; it must be in (0, 1)", options.alpha);
    let name = options.file.display();
    let text = read_text(&options.file).with_context(|| format!("reading {name}"))?;
    let Parsed { judgments, invalid } = match &options.judge_reward {
        None => parse(&text, options.suite.as_deref()).with_context(|| name.to_string())?,
        Some(model) => {
            let texts = texts(&text).with_context(|| name.to_string())?;
            launch::by_reward_model(model, &texts, &common.device()?)?
        }
    };
    let seed = common.seed.first().copied().unwrap_or(0);
    let (rates, strengths) = winrate_file(&judgments, options.resamples, options.alpha, seed);
    let (names, matrix) = matrix(&judgments);
    if common.json {
        print_json(&json!({
            "invalid": invalid,
            "win_rates": rates.iter().map(as_json).collect::<Vec<_>>(),
            "strengths": strengths.iter().map(|s| json!({
                "name": s.name, "strength": s.strength, "low": s.interval.low, "high": s.interval.high,
                "island": s.island,
            })).collect::<Vec<_>>(),
            "matrix": {"names": names, "win_rates": matrix},
        }))?;
    } else {
        let mut text = text_of(&rates, &strengths);
        if names.len() > 2 {
            text += &format!("\n{}", table_of(&names, &matrix));
        }
        if invalid > 0 {
            text += &format!("\n{invalid} without a valid judgment, left out\n");
        }
        print(&text)?;
    }
    Ok(Exit::Done)
}

/// Row over column.
fn table_of(names: &[&str], matrix: &[Vec<Option<f64>>]) -> String {
    let cell = |rate: &Option<f64>| rate.map_or_else(|| "–".to_owned(), |r| format!("{:.1} %", 100.0 * r));
    let mut rows =
        vec![std::iter::once("wins over").chain(names.iter().copied()).map(str::to_owned).collect()];
    for (name, rates) in names.iter().zip(matrix) {
        rows.push(std::iter::once((*name).to_owned()).chain(rates.iter().map(cell)).collect::<Vec<_>>());
    }
    table(&rows)
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
    let percent = |x: f64| if x.is_finite() { format!("{:.2} %", 100.0 * x) } else { "n/a".to_owned() };
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
    let islands = 1 + strengths.iter().map(|s| s.island).max().unwrap_or(0);
    for island in 0..islands {
        let mut rows = vec![cells(&["contestant", "Bradley-Terry", "interval"])];
        for s in strengths.iter().filter(|s| s.island == island) {
            // Of a single judgment there is none.
            let interval = match s.interval.low < s.interval.high {
                true => format!("{:.3} to {:.3}", s.interval.low, s.interval.high),
                false => "n/a".to_owned(),
            };
            rows.push(vec![s.name.clone(), format!("{:.3}", s.strength), interval]);
        }
        out += &("\n".to_owned() + &table(&rows));
    }
    if islands > 1 {
        out += "\nNo chain of judgments joins the contestants of one table of strengths to those of another: they do not compare\n";
    }
    out
}
