//! Samples side by side: the same prompt, every arm's completion, and who won.

use serde::Serialize;

use super::format::plain;
use super::view::{View, distinct};
use crate::record::{Opponent, SampleRow};

/// Prompts shown a suite.
const SHOWN: usize = 12;
/// Longer texts are cut in the report (never in `samples.jsonl`).
const LONGEST: usize = 2000;

#[derive(Serialize)]
pub struct SuiteSamples {
    pub suite: String,
    pub total: usize,
    pub prompts: Vec<Prompt>,
}

#[derive(Serialize)]
pub struct Prompt {
    pub example: String,
    pub subset: String,
    pub prompt: String,
    /// The prompt's beginning on one line.
    pub start: String,
    pub answers: Vec<Answer>,
}

#[derive(Serialize)]
pub struct Answer {
    pub who: String,
    pub text: String,
    /// `24 tokens · reward 0.81`.
    pub facts: String,
    /// `beats base`, `loses to chosen`, …
    pub outcomes: Vec<Outcome>,
}

#[derive(Serialize)]
pub struct Outcome {
    /// `won`, `lost` or `tied`.
    pub class: &'static str,
    pub words: String,
}

/// Evenly spaced over the suite, not picked by result: each arm's first seed.
pub fn chosen(view: &View<'_>) -> Vec<SuiteSamples> {
    if view.texts_withheld() {
        return Vec::new();
    }
    let suites = distinct(view.input.samples.iter().map(|s| s.suite.as_str()));
    suites.into_iter().map(|suite| of_suite(view, suite)).collect()
}

fn of_suite(view: &View<'_>, suite: String) -> SuiteSamples {
    let of_suite = || view.input.samples.iter().filter(|s| s.suite == suite && view.counts(&s.run));
    let examples = distinct(of_suite().map(|s| s.example.as_str()));
    let count = examples.len().min(SHOWN);
    let picked = (0..count).map(|i| &examples[i * examples.len() / count]);
    let prompts = picked.map(|example| {
        let rows: Vec<_> = of_suite().filter(|s| s.example == *example).collect();
        prompt(view, example, &rows)
    });
    SuiteSamples { total: examples.len(), prompts: prompts.collect(), suite: suite.clone() }
}

fn prompt(view: &View<'_>, example: &str, rows: &[&SampleRow]) -> Prompt {
    let first = rows.first();
    let of_arm = |name: &str| rows.iter().filter(|r| r.arm == name).min_by_key(|r| r.seed);
    let mut answers: Vec<_> = view.arms.iter().filter_map(|a| of_arm(&a.name)).map(|r| answer(r)).collect();
    let opponents = first.map(|r| r.opponents.as_slice()).unwrap_or_default();
    // Where the base was sampled itself, its text is there already and is not repeated as an opponent.
    let others = opponents.iter().filter(|o| of_arm(&o.name).is_none());
    answers.extend(others.map(opponent));
    let text = first.map(|r| r.prompt.as_str()).unwrap_or_default();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start: String = words.chars().take(90).collect();
    Prompt {
        start: if start.len() < words.len() { format!("{start}…") } else { start },
        example: example.to_owned(),
        subset: first.map(|r| r.subset.clone()).unwrap_or_default(),
        prompt: cut(text),
        answers,
    }
}

fn answer(row: &SampleRow) -> Answer {
    let mut facts = vec![format!("seed {}", row.seed), format!("{} tokens", row.tokens)];
    if !row.finished {
        facts.push("cut at the limit".to_owned());
    }
    facts.extend(row.reward.map(|r| format!("reward {}", plain(r))));
    let played = row.opponents.iter().filter(|o| o.name != row.arm);
    Answer {
        who: row.arm.clone(),
        text: cut(&row.completion),
        facts: facts.join(" · "),
        outcomes: played.map(outcome).collect(),
    }
}

fn opponent(o: &Opponent) -> Answer {
    let facts = o.reward.map(|r| format!("reward {}", plain(r))).unwrap_or_default();
    Answer { who: o.name.clone(), text: cut(&o.completion), facts, outcomes: Vec::new() }
}

fn outcome(o: &Opponent) -> Outcome {
    let (class, verb) = match o.preference {
        p if p > 0.5 => ("won", "beats"),
        p if p < 0.5 => ("lost", "loses to"),
        _ => ("tied", "ties with"),
    };
    Outcome { class, words: format!("{verb} {}", o.name) }
}

/// Completions begin with the blank that parts them from their prompt: not shown.
fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} […]", &text[..end]),
        None => text.to_owned(),
    }
}
