//! Win rates of all contestants against each other, and their strengths, from the rows on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::error::Result;
use crate::plan::{BASE_ARM, VerdictSpec};
use crate::record::{
    JudgmentRow, Records, SENTINEL, SampleRow, StrengthRow, WinRateRow, counted, replace_contests,
};
use crate::stats::winrate::{Judgment, Strength, bradley_terry, length_controlled, win_rate};
use crate::suite::judge::by_reward;

/// Resamples of the intervals of strengths.
const RESAMPLES: usize = 1000;

/// Writes `winrates.csv` and `strengths.csv` beside the records; no file where nothing was judged in pairs.
///
/// Contestants are the arms (all seeds together), `base`, `chosen` and the sentinels. Matches are those that were
/// judged, and, where the judge gives rewards, every pair of arms on each prompt and seed.
///
/// # Errors
/// A folder that cannot be written.
pub(super) fn write(dir: &Path, records: &Records) -> Result<()> {
    let counted = counted(&records.runs);
    let judgments = || records.judgments.iter().filter(|j| counted(&j.run));
    let suites: BTreeSet<&str> = judgments().map(|j| j.suite.as_str()).collect();
    let (mut rates, mut strengths) = (Vec::new(), Vec::new());
    for suite in suites {
        let samples: Vec<&SampleRow> =
            records.samples.iter().filter(|s| s.suite == suite && counted(&s.run)).collect();
        let mut judged: Vec<JudgmentRow> = judgments().filter(|j| j.suite == suite).cloned().collect();
        judged.extend(arms_by_reward(&samples));
        // Examples of one prompt are resampled together, whatever their ids.
        let prompts: BTreeMap<&str, &str> =
            samples.iter().map(|s| (s.example.as_str(), s.prompt.as_str())).collect();
        let prompt = |j: &JudgmentRow| prompts.get(j.id.as_str()).copied().unwrap_or(&j.id).to_owned();
        rates.extend(win_rates(suite, &judged, &prompt));
        let valid: Vec<Judgment> = judged.iter().filter_map(|j| judgment(j, prompt(j))).collect();
        let VerdictSpec { alpha, seed, .. } = records.plan.verdict;
        strengths.extend(strengths_of(suite, &valid, alpha, seed));
    }
    replace_contests(dir, &rates, &strengths)
}

fn strengths_of(suite: &str, judged: &[Judgment], alpha: f64, seed: u64) -> Vec<StrengthRow> {
    let row = |s: Strength| StrengthRow {
        suite: suite.to_owned(),
        contestant: s.name,
        strength: s.strength,
        low: s.interval.low,
        high: s.interval.high,
        island: s.island as u64,
    };
    bradley_terry(judged, RESAMPLES, alpha, seed).into_iter().map(row).collect()
}

fn judgment(row: &JudgmentRow, prompt: String) -> Option<Judgment> {
    Some(Judgment {
        id: prompt,
        candidate: row.candidate.clone(),
        baseline: row.baseline.clone(),
        preference: row.preference?,
        candidate_length: Some(row.candidate_length as f64),
        baseline_length: Some(row.baseline_length as f64),
    })
}

/// Every pair of arms whose samples of one prompt and seed both have a reward.
fn arms_by_reward(samples: &[&SampleRow]) -> Vec<JudgmentRow> {
    let mut games: BTreeMap<(u64, &str), Vec<(&SampleRow, f64)>> = BTreeMap::new();
    for s in samples.iter().filter(|s| s.arm != BASE_ARM) {
        if let Some(reward) = s.reward {
            games.entry((s.seed, &s.example)).or_default().push((s, reward));
        }
    }
    let mut rows = Vec::new();
    for players in games.values_mut() {
        players.sort_by(|a, b| a.0.arm.cmp(&b.0.arm));
        for (i, (a, ra)) in players.iter().enumerate() {
            for (b, rb) in &players[i + 1..] {
                rows.push(JudgmentRow {
                    run: a.run.clone(),
                    arm: a.arm.clone(),
                    seed: a.seed,
                    suite: a.suite.clone(),
                    id: a.example.clone(),
                    candidate: a.arm.clone(),
                    baseline: b.arm.clone(),
                    preference: Some(by_reward(*ra, *rb)),
                    flipped: None,
                    candidate_length: a.completion.chars().count() as u64,
                    baseline_length: b.completion.chars().count() as u64,
                });
            }
        }
    }
    rows
}

fn win_rates(
    suite: &str,
    judged: &[JudgmentRow],
    prompt: &dyn Fn(&JudgmentRow) -> String,
) -> Vec<WinRateRow> {
    let mut pairs: BTreeMap<(&str, &str), Vec<&JudgmentRow>> = BTreeMap::new();
    for j in judged {
        pairs.entry((&j.candidate, &j.baseline)).or_default().push(j);
    }
    let row = |((candidate, baseline), rows): ((&str, &str), Vec<&JudgmentRow>)| {
        let valid: Vec<&JudgmentRow> = rows.iter().copied().filter(|j| j.preference.is_some()).collect();
        let preferences: Vec<f64> = valid.iter().filter_map(|j| j.preference).collect();
        let prompts: Vec<String> = valid.iter().map(|j| prompt(j)).collect();
        let clusters: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let raw = win_rate(&preferences, &clusters);
        let differences: Vec<f64> =
            valid.iter().map(|j| j.baseline_length as f64 - j.candidate_length as f64).collect();
        // Some sentinels win by length alone; the control for length is meant for real answers.
        let answers = !candidate.starts_with(SENTINEL);
        WinRateRow {
            suite: suite.to_owned(),
            candidate: candidate.to_owned(),
            baseline: baseline.to_owned(),
            n: valid.len() as u64,
            prompts: clusters.iter().collect::<BTreeSet<_>>().len() as u64,
            win_rate: raw.rate,
            standard_error: raw.standard_error,
            wins: raw.wins as u64,
            losses: raw.losses as u64,
            ties: raw.ties as u64,
            invalid: (rows.len() - valid.len()) as u64,
            length_controlled: answers
                .then(|| length_controlled(&preferences, &differences))
                .flatten()
                .map(|l| l.rate),
        }
    };
    pairs.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(arm: &str, seed: u64, example: &str, reward: f64) -> SampleRow {
        SampleRow {
            run: format!("{arm}-s{seed}"),
            arm: arm.to_owned(),
            seed,
            suite: "s".to_owned(),
            subset: String::new(),
            example: example.to_owned(),
            prompt: format!("prompt of {example}"),
            completion: "four".to_owned(),
            tokens: 1,
            finished: true,
            reward: Some(reward),
            opponents: vec![],
        }
    }

    #[test]
    fn arms_meet_on_each_prompt_and_seed_and_prompts_are_the_clusters() {
        let samples = [
            sample("kto", 1, "a", 1.0),
            sample("dpo", 1, "a", 0.0),
            sample("kto", 2, "a", 0.5),
            sample("dpo", 2, "a", 0.5),
            sample("dpo", 1, "b", 0.2),
            sample("kto", 1, "b", 0.9),
            sample("base", 1, "b", 9.0),
        ];
        let games = arms_by_reward(&samples.iter().collect::<Vec<_>>());
        // dpo is the candidate: it stands first by name.
        let found: Vec<_> =
            games.iter().map(|g| (g.candidate.as_str(), g.seed, g.id.as_str(), g.preference)).collect();
        let wanted = [("dpo", 1, "a", Some(0.0)), ("dpo", 1, "b", Some(0.0)), ("dpo", 2, "a", Some(0.5))];
        assert_eq!(found, wanted);
        let mut judged = games;
        judged.push(JudgmentRow { preference: None, ..judged[0].clone() });
        let rates = win_rates("s", &judged, &|j| j.id.clone());
        let [rate] = &rates[..] else { panic!("one pair met: {rates:?}") };
        assert_eq!((rate.n, rate.prompts, rate.invalid), (3, 2, 1));
        assert_eq!((rate.wins, rate.losses, rate.ties), (0, 2, 1));
        assert!((rate.win_rate - 1.0 / 6.0).abs() < 1e-12);
        // ψ: a: −1/18 + 1/9, b: −1/18; Var = 2·((1/18)² + (1/18)²).
        assert!((rate.standard_error - (4.0f64 / 324.0).sqrt()).abs() < 1e-12, "{}", rate.standard_error);
    }

    #[test]
    fn strengths_say_whose_they_compare_with() {
        let won = |candidate: &str, baseline: &str| Judgment {
            id: "p".to_owned(),
            candidate: candidate.to_owned(),
            baseline: baseline.to_owned(),
            preference: 1.0,
            candidate_length: None,
            baseline_length: None,
        };
        let rows = strengths_of("s", &[won("a", "d"), won("c", "b")], 0.05, 1);
        let islands: Vec<(&str, u64)> = rows.iter().map(|r| (r.contestant.as_str(), r.island)).collect();
        assert_eq!(islands, [("a", 0), ("b", 1), ("c", 1), ("d", 0)]);
        // As earlier versions wrote them.
        let mut row = serde_json::to_value(&rows[1]).unwrap();
        row.as_object_mut().unwrap().remove("island");
        assert_eq!(serde_json::from_value::<StrengthRow>(row).unwrap().island, 0);
    }
}
