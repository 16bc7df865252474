//! Preference suites: does the policy give the preferred completion the higher reward, or the higher
//! likelihood?

use std::collections::{BTreeMap, BTreeSet};

use super::calibration::{brier, expected_calibration_error};
use super::definition::Suite;
use super::estimate::{self, Estimate};
use super::metric::{Aggregation, Metric};
use super::scored::{ALL, ExampleScore, MetricScore};

/// What the models say of one pair; log-probs are sums over the completion, in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct PairLogps {
    pub example: String,
    pub cluster: String,
    pub subset: String,
    pub chosen: f64,
    pub rejected: f64,
    pub reference_chosen: f64,
    pub reference_rejected: f64,
    pub chosen_tokens: usize,
    pub rejected_tokens: usize,
    /// UTF-8 bytes of the chosen completion's text.
    pub chosen_bytes: usize,
}

/// What two computations of one log-prob sum in fp32 differ by, in nats: a policy that equals its reference
/// has margins of this size where the two were batched differently, and they are ties.
pub(super) const NOISE: f64 = 2e-4;

impl PairLogps {
    /// r(chosen) − r(rejected) with r = β log π/π_ref (arXiv 2305.18290, eq. 5).
    pub fn margin(&self, beta: f64) -> f64 {
        beta * ((self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected))
    }

    /// The value of a metric that each example has.
    fn value(&self, metric: Metric, beta: f64) -> f64 {
        match metric {
            Metric::RewardAccuracy if self.margin(1.0).abs() <= NOISE => 0.5,
            Metric::RewardAccuracy => above(self.margin(beta)),
            Metric::Margin => self.margin(beta),
            Metric::RewardChosen => beta * (self.chosen - self.reference_chosen),
            Metric::RewardRejected => beta * (self.rejected - self.reference_rejected),
            Metric::LogpAccuracy => above(self.chosen - self.rejected),
            Metric::NormalisedLogpAccuracy => {
                above(self.chosen / self.chosen_tokens as f64 - self.rejected / self.rejected_tokens as f64)
            }
            Metric::Brier => brier(self.margin(beta)),
            _ => f64::NAN,
        }
    }
}

/// 1 where positive, one half at 0.
fn above(difference: f64) -> f64 {
    if difference > 0.0 {
        1.0
    } else if difference == 0.0 {
        0.5
    } else {
        0.0
    }
}

/// All scores of a preference suite from its pairs' log-probs: per example, over all, by subset where there
/// are several, and by section where the suite has sections.
pub fn score_pairs(pairs: &[PairLogps], suite: &Suite, beta: f64) -> (Vec<ExampleScore>, Vec<MetricScore>) {
    let (mut examples, mut metrics) = (Vec::new(), Vec::new());
    let subsets: BTreeSet<&str> = pairs.iter().map(|p| p.subset.as_str()).filter(|s| !s.is_empty()).collect();
    for &metric in &suite.metrics {
        if metric.info().aggregation == Aggregation::Mean {
            examples.extend(pairs.iter().map(|p| ExampleScore {
                example: p.example.clone(),
                cluster: p.cluster.clone(),
                subset: p.subset.clone(),
                metric,
                value: p.value(metric, beta),
            }));
        }
        let mut push = |subset: &str, e: Estimate| {
            let Estimate { value, n, standard_error } = e;
            metrics.push(MetricScore { subset: subset.to_owned(), metric, value, n, standard_error });
        };
        push(ALL, aggregate(&pairs.iter().collect::<Vec<_>>(), metric, beta));
        if subsets.len() > 1 {
            for subset in &subsets {
                let part: Vec<&PairLogps> = pairs.iter().filter(|p| p.subset == *subset).collect();
                push(subset, aggregate(&part, metric, beta));
            }
        }
        for (name, e) in sections(pairs, suite, metric, beta) {
            push(&name, e);
        }
    }
    (examples, metrics)
}

fn aggregate(pairs: &[&PairLogps], metric: Metric, beta: f64) -> Estimate {
    let clusters: Vec<&str> = pairs.iter().map(|p| p.cluster.as_str()).collect();
    let nll: Vec<f64> = pairs.iter().map(|p| -p.chosen).collect();
    match metric {
        Metric::CalibrationError => {
            let margins: Vec<f64> = pairs.iter().map(|p| p.margin(beta)).collect();
            estimate::jackknife(&clusters, |i| expected_calibration_error(&mut i.map(|i| margins[i])))
        }
        Metric::ChosenPerplexity => {
            let tokens: Vec<f64> = pairs.iter().map(|p| p.chosen_tokens as f64).collect();
            estimate::exp(estimate::ratio(&nll, &tokens, &clusters))
        }
        Metric::ChosenBitsPerByte => {
            let bits: Vec<f64> = nll.iter().map(|x| x / std::f64::consts::LN_2).collect();
            let bytes: Vec<f64> = pairs.iter().map(|p| p.chosen_bytes as f64).collect();
            estimate::ratio(&bits, &bytes, &clusters)
        }
        _ => {
            let values: Vec<f64> = pairs.iter().map(|p| p.value(metric, beta)).collect();
            estimate::mean(&values, &clusters)
        }
    }
}

/// The name under which the mean of the sections is reported.
pub const SECTIONS_MEAN: &str = "mean of sections";

/// The subsets of each section that no pair belongs to.
fn absent<'s>(pairs: &[PairLogps], suite: &'s Suite) -> BTreeMap<&'s str, Vec<&'s str>> {
    let present: BTreeSet<&str> = pairs.iter().map(|p| p.subset.as_str()).collect();
    let of = |subsets: &'s BTreeMap<String, f64>| {
        subsets.keys().map(String::as_str).filter(|s| !present.contains(s)).collect()
    };
    suite.sections.iter().map(|(section, subsets)| (section.as_str(), of(subsets))).collect()
}

/// Says which sections have no score because a part of them is not there.
pub(super) fn incomplete(pairs: &[PairLogps], suite: &Suite) -> Option<String> {
    let lacking = absent(pairs, suite).into_iter().filter(|(_, subsets)| !subsets.is_empty());
    let lacking: Vec<String> =
        lacking.map(|(section, s)| format!("{section} (lacks {})", s.join(", "))).collect();
    let shown = lacking.join("; ");
    (!lacking.is_empty())
        .then(|| format!("no score of sections that are not complete, nor their mean: {shown}"))
}

/// Section scores and their plain mean, for accuracies: sections weigh subsets as the suite says. Only a section that is
/// complete has a score, and only where all are they have a mean: of a part it would be another benchmark's.
fn sections(pairs: &[PairLogps], suite: &Suite, metric: Metric, beta: f64) -> Vec<(String, Estimate)> {
    let accuracy =
        matches!(metric, Metric::RewardAccuracy | Metric::LogpAccuracy | Metric::NormalisedLogpAccuracy);
    if suite.sections.is_empty() || !accuracy {
        return Vec::new();
    }
    let values: Vec<f64> = pairs.iter().map(|p| p.value(metric, beta)).collect();
    let clusters: Vec<&str> = pairs.iter().map(|p| p.cluster.as_str()).collect();
    let groups: Vec<&str> = pairs.iter().map(|p| p.subset.as_str()).collect();
    let absent = absent(pairs, suite);
    let complete = |section: &str| absent[section].is_empty();
    let (mut scores, mut overall) = (Vec::new(), BTreeMap::new());
    for (section, subsets) in suite.sections.iter().filter(|(section, _)| complete(section)) {
        let weights: BTreeMap<&str, f64> = subsets.iter().map(|(s, w)| (s.as_str(), *w)).collect();
        if let Some(e) = estimate::weighted(&values, &groups, &clusters, &weights) {
            scores.push((section.clone(), e));
            // The mean of the sections is again a weighted mean of subsets.
            let total: f64 = weights.values().sum();
            overall.extend(weights.into_iter().map(|(s, w)| (s, w / total)));
        }
    }
    if !suite.sections.keys().all(|section| complete(section)) {
        return scores;
    }
    if let Some(e) = estimate::weighted(&values, &groups, &clusters, &overall) {
        scores.push((SECTIONS_MEAN.to_owned(), e));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::shipped::find;

    fn pair(subset: &str, id: usize, chosen: f64, rejected: f64) -> PairLogps {
        PairLogps {
            example: format!("{subset}-{id}"),
            cluster: format!("{subset}-{}", id / 2),
            subset: subset.to_owned(),
            chosen,
            rejected,
            reference_chosen: -10.0,
            reference_rejected: -10.0,
            chosen_tokens: 4,
            rejected_tokens: 8,
            chosen_bytes: 20,
        }
    }

    fn get(metrics: &[MetricScore], metric: Metric, subset: &str) -> f64 {
        metrics.iter().find(|m| m.metric == metric && m.subset == subset).unwrap().value
    }

    #[test]
    fn metrics_of_two_pairs_by_hand() {
        let pairs = [pair("", 0, -8.0, -12.0), pair("", 2, -11.0, -10.0)];
        let (examples, metrics) = score_pairs(&pairs, &find("heldout", "preference").unwrap(), 0.1);
        let all = |m| get(&metrics, m, ALL);
        assert_eq!(all(Metric::RewardAccuracy), 0.5);
        assert!((all(Metric::Margin) - (0.4 - 0.1) / 2.0).abs() < 1e-12);
        assert_eq!(all(Metric::LogpAccuracy), 0.5);
        // −2 against −1.5 per token, −2.75 against −1.25.
        assert_eq!(all(Metric::NormalisedLogpAccuracy), 0.0);
        assert!((all(Metric::ChosenPerplexity) - (19.0f64 / 8.0).exp()).abs() < 1e-9);
        assert!((all(Metric::ChosenBitsPerByte) - 19.0 / std::f64::consts::LN_2 / 40.0).abs() < 1e-12);
        assert_eq!(examples.len(), 2 * 7, "seven metrics have a value per example");
        assert!((all(Metric::RewardChosen) - (0.2 - 0.1) / 2.0).abs() < 1e-12);
        assert!((all(Metric::RewardRejected) - (-0.2 + 0.0) / 2.0).abs() < 1e-12);
        let mut tie = pairs[0].clone();
        (tie.chosen, tie.rejected) = (-10.0, -10.0);
        assert_eq!(tie.value(Metric::RewardAccuracy, 0.1), 0.5, "a policy that equals its reference");
    }

    /// RewardBench by its definition: section = Σ count × subset accuracy / Σ count, overall = mean.
    #[test]
    fn rewardbench_sections_are_weighted_as_the_official_code_weights_them() {
        let suite = find("rewardbench", "preference").unwrap();
        let mut pairs = Vec::new();
        let mut accuracy = BTreeMap::new();
        for (i, subset) in suite.sections.values().flat_map(|s| s.keys()).enumerate() {
            let (n, right) = (5 + i % 4, 1 + i % 5);
            accuracy.insert(subset.clone(), right as f64 / n as f64);
            pairs.extend((0..n).map(|j| pair(subset, j, if j < right { -9.0 } else { -11.0 }, -10.0)));
        }
        assert_eq!(accuracy.len(), 23);
        let (_, metrics) = score_pairs(&pairs, &suite, 1.0);
        let mut total = 0.0;
        for (section, subsets) in &suite.sections {
            let weight: f64 = subsets.values().sum();
            let expected: f64 = subsets.iter().map(|(s, w)| accuracy[s] * w / weight).sum();
            assert!((get(&metrics, Metric::RewardAccuracy, section) - expected).abs() < 1e-12, "{section}");
            total += expected / 4.0;
        }
        assert!((get(&metrics, Metric::RewardAccuracy, SECTIONS_MEAN) - total).abs() < 1e-12);
        assert_eq!(get(&metrics, Metric::RewardAccuracy, "math-prm"), accuracy["math-prm"]);
        assert!(metrics.iter().all(|m| m.standard_error >= 0.0));
        assert_eq!(incomplete(&pairs, &suite), None);
        // Without one subset its section has no score, and there is no mean of sections.
        pairs.retain(|p| p.subset != "math-prm");
        let (_, metrics) = score_pairs(&pairs, &suite, 1.0);
        let has = |subset: &str| metrics.iter().any(|m| m.subset == subset);
        assert!(has("Safety") && has("hep-go") && !has("Reasoning") && !has(SECTIONS_MEAN));
        assert!(incomplete(&pairs, &suite).unwrap().ends_with("mean: Reasoning (lacks math-prm)"));
        assert_eq!(suite.sections["Reasoning"]["math-prm"], 984.0);
        assert_eq!(suite.sections["Safety"].values().sum::<f64>(), 740.0);
    }
}
