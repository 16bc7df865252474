//! Completions made elsewhere, judged by a reward model.

use candle_core::Device;

use super::judges::reward_judge;
use crate::base::error::{Result, ensure};
use crate::stats::winrate::{Judgment, Parsed, Texts};
use crate::suite::judge::{Judge, Match, Task};

/// The higher score wins, equal texts tie. A pair of which a text is longer than the model's context has no valid
/// judgment.
///
/// # Errors
/// A model that cannot be read, no pair that it can judge.
pub fn by_reward_model(source: &str, texts: &[Texts], device: &Device) -> Result<Parsed> {
    let judge = reward_judge(source, device)?;
    let task = |t: &Texts| Task {
        id: t.id.clone(),
        prompt: t.prompt.clone(),
        asked: t.prompt.clone(),
        ..Task::default()
    };
    let tasks: Vec<Task> = texts.iter().map(task).collect();
    let mut matches = Vec::with_capacity(texts.len());
    for (task, t) in tasks.iter().zip(texts) {
        matches.push(Match { task, candidate: &t.candidate_text, baseline: &t.baseline_text });
    }
    let outcomes = judge.compare(&matches)?;
    let judgment = |(t, preference): (&Texts, f64)| Judgment {
        id: t.id.clone(),
        candidate: t.candidate.clone(),
        baseline: t.baseline.clone(),
        preference,
        candidate_length: Some(t.candidate_text.chars().count() as f64),
        baseline_length: Some(t.baseline_text.chars().count() as f64),
    };
    let judgments: Vec<Judgment> = texts
        .iter()
        .zip(&outcomes)
        .filter_map(|(t, outcome)| outcome.preference.map(|p| (t, p)))
        .map(judgment)
        .collect();
    let invalid = texts.len() - judgments.len();
    ensure!(!judgments.is_empty(), "all {invalid} pairs are longer than the context of {source}");
    Ok(Parsed { judgments, invalid })
}
