//! Label suites: does the policy's implicit reward tell desirable completions from undesirable ones?
//!
//! A completion with a label has no partner of its own, so each desirable one is held against every undesirable one, of
//! whatever prompt: the area under the ROC curve, which is Mann and Whitney's U over all such pairs.

use std::collections::BTreeSet;

use super::definition::Suite;
use super::estimate;
use super::logps::Policy;
use super::lots::draw;
use super::metric::{Aggregation, Metric};
use super::preference::NOISE;
use super::rows;
use super::score::{ScoreContext, SuiteData, both_logps, cut, unique};
use super::scored::{ALL, ExampleScore, Exclusion, MetricScore, ScoredSuite};
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::data::{Dataset, Sequence, UnpairedExample, load_with, tokenize_unpaired};

/// What the models say of one completion; log-probs are sums over it, in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelLogps {
    pub example: String,
    pub cluster: String,
    pub subset: String,
    pub desirable: bool,
    pub logp: f64,
    pub reference: f64,
    pub tokens: usize,
}

impl LabelLogps {
    /// log π/π_ref: the implicit reward without its β, which orders nothing otherwise.
    pub fn log_ratio(&self) -> f64 {
        self.logp - self.reference
    }
}

/// Whether there is something to be told apart.
///
/// # Errors
/// All completions have one label.
pub fn check_both(examples: &[UnpairedExample], suite: &str) -> Result<()> {
    let desirable = examples.iter().filter(|e| e.desirable).count();
    let undesirable = examples.len() - desirable;
    if desirable > 0 && undesirable > 0 {
        return Ok(());
    }
    Err(anyhow!(
        "suite `{suite}` holds desirable completions against undesirable ones, and there are {desirable} and {undesirable}"
    ))
    .hint("take a generation suite (suites.preference = [] and suites.generation = [\"heldout-prompts\"]), or data with both")
}

/// The completions that a label suite asks about; a pair is its two.
pub(super) fn examples(from: &SuiteData, suite: &Suite) -> Result<Vec<UnpairedExample>> {
    let dataset = match suite.source.as_str() {
        "plan" => from.heldout.clone(),
        _ => load_with(&from.spec(suite), &suite.split, &from.tokenizer.template())?.dataset,
    };
    let Dataset::Unpaired(examples) = dataset.to_unpaired() else { return Ok(vec![]) };
    Ok(draw(examples, from.max_examples, |e| &e.id))
}

pub(super) fn score<P: Policy>(ctx: &mut ScoreContext<P>, suite: &Suite) -> Result<ScoredSuite> {
    let asked = examples(&ctx.source(), suite)?;
    unique(asked.iter().map(|e| e.id.as_str()))?;
    check_both(&asked, &suite.name)?;
    let most = ctx.data.max_length.saturating_sub(ctx.reserve);
    let (tokenized, stats) = tokenize_unpaired(&asked, ctx.tokenizer, most)?;
    let groups: Vec<Vec<&Sequence>> = tokenized.iter().map(|e| vec![&e.sequence]).collect();
    let (policy, reference) = both_logps(ctx, &groups)?;
    let kept: BTreeSet<&str> = tokenized.iter().map(|e| e.id.as_str()).collect();
    let left = asked.iter().filter(|e| kept.contains(e.id.as_str()));
    let labels: Vec<LabelLogps> = left
        .zip(&tokenized)
        .zip(policy.iter().zip(&reference))
        .map(|((text, example), (&logp, &reference))| LabelLogps {
            example: example.id.clone(),
            cluster: rows::cluster(&text.prompt),
            subset: example.subset.clone(),
            desirable: example.desirable,
            logp,
            reference,
            tokens: example.sequence.completion_len(),
        })
        .collect();
    for e in &labels {
        ensure!(
            e.log_ratio().is_finite(),
            "example `{}`: the log-prob ratio is not finite: {e:?}",
            e.example
        );
    }
    let (examples, metrics) = score_labels(&labels, suite, ctx.beta);
    let reason = "the prompt fills max_length, or a completion has no token";
    let dropped = asked.iter().filter(|e| !kept.contains(e.id.as_str()));
    let excluded = dropped.map(|e| Exclusion { example: e.id.clone(), reason: reason.to_owned() }).collect();
    let notes = cut(stats.cut, policy.len(), most).into_iter().collect();
    Ok(ScoredSuite { examples, metrics, excluded, notes, labels, ..ScoredSuite::default() })
}

/// All scores of a label suite, over all its examples: every pair of completions is of two prompts, so there are none by
/// subset.
pub fn score_labels(
    labels: &[LabelLogps],
    suite: &Suite,
    beta: f64,
) -> (Vec<ExampleScore>, Vec<MetricScore>) {
    let (mut examples, mut metrics) = (Vec::new(), Vec::new());
    for &metric in &suite.metrics {
        let valued: Vec<(&LabelLogps, f64)> = match metric {
            Metric::LabelAuc => labels.iter().zip(auc_values(labels)).collect(),
            Metric::RewardDesirable | Metric::RewardUndesirable => {
                let side = labels.iter().filter(|e| e.desirable == (metric == Metric::RewardDesirable));
                side.map(|e| (e, beta * e.log_ratio())).collect()
            }
            _ => continue,
        };
        debug_assert_eq!(metric.info().aggregation, Aggregation::Mean);
        let (values, clusters): (Vec<f64>, Vec<&str>) =
            valued.iter().map(|(e, value)| (*value, e.cluster.as_str())).unzip();
        let estimate::Estimate { value, n, standard_error } = estimate::mean(&values, &clusters);
        metrics.push(MetricScore { subset: ALL.to_owned(), metric, value, n, standard_error });
        examples.extend(valued.into_iter().map(|(e, value)| ExampleScore {
            example: e.example.clone(),
            cluster: e.cluster.clone(),
            subset: String::new(),
            metric,
            value,
        }));
    }
    (examples, metrics)
}

/// A value an example whose mean is the area A under the ROC curve, and whose deviations from it are the influences of the
/// examples on A: A + N/n (v − A), v the share of the other label's completions on whose right side this one's log π/π_ref
/// is (tie: one half), n the completions of its own label, N all. These are the structural components of DeLong et al.
/// (1988), so that the clustered mean's standard error is A's, and a paired comparison of two policies is theirs.
///
/// Differences within [`NOISE`] are ties.
fn auc_values(labels: &[LabelLogps]) -> Vec<f64> {
    let sorted = |desirable: bool| {
        let mut side: Vec<f64> =
            labels.iter().filter(|e| e.desirable == desirable).map(LabelLogps::log_ratio).collect();
        side.sort_by(f64::total_cmp);
        side
    };
    let (desirable, undesirable) = (sorted(true), sorted(false));
    if desirable.is_empty() || undesirable.is_empty() {
        return vec![f64::NAN; labels.len()];
    }
    let placement = |e: &LabelLogps| {
        let (x, others) = (e.log_ratio(), if e.desirable { &undesirable } else { &desirable });
        let below = others.partition_point(|y| x - y > NOISE) as f64;
        let not_above = others.partition_point(|y| y - x <= NOISE) as f64;
        let beaten = (below + not_above) / 2.0 / others.len() as f64;
        if e.desirable { beaten } else { 1.0 - beaten }
    };
    let counts = [&undesirable, &desirable].map(|side| side.len() as f64);
    let area = labels.iter().filter(|e| e.desirable).map(placement).sum::<f64>() / counts[1];
    let weight = |e: &LabelLogps| labels.len() as f64 / counts[usize::from(e.desirable)];
    labels.iter().map(|e| area + weight(e) * (placement(e) - area)).collect()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::base::error::render;
    use crate::base::seed::rng;
    use crate::suite::shipped::find;

    fn label(i: usize, prompt: usize, desirable: bool, log_ratio: f64) -> LabelLogps {
        LabelLogps {
            example: i.to_string(),
            cluster: prompt.to_string(),
            subset: String::new(),
            desirable,
            logp: -20.0 + log_ratio,
            reference: -20.0,
            tokens: 4,
        }
    }

    fn auc(labels: &[LabelLogps]) -> MetricScore {
        let (_, metrics) = score_labels(labels, &find("heldout-labels", "preference").unwrap(), 0.1);
        metrics.into_iter().find(|m| m.metric == Metric::LabelAuc).unwrap()
    }

    #[test]
    fn the_area_of_five_completions_by_hand() {
        let rows = [(true, 1.0), (true, 0.0), (false, 0.0), (false, -1.0), (false, 2.0)];
        let labels: Vec<LabelLogps> =
            rows.iter().enumerate().map(|(i, (d, r))| label(i, i, *d, *r)).collect();
        let suite = find("heldout-labels", "preference").unwrap();
        let (examples, metrics) = score_labels(&labels, &suite, 0.1);
        // Of six pairs three are won and one is tied.
        assert!((auc(&labels).value - 3.5 / 6.0).abs() < 1e-12, "{:?}", auc(&labels));
        // The placements 2/3 and 1/2, of weight 5/2; 3/4, 1 and 0, of weight 5/3.
        let area = 3.5 / 6.0;
        let expected = [2.0 / 3.0, 0.5, 0.75, 1.0, 0.0].iter().enumerate();
        for (i, v) in expected {
            let weight = if i < 2 { 2.5 } else { 5.0 / 3.0 };
            assert!((examples[i].value - (area + weight * (v - area))).abs() < 1e-12, "example {i}");
        }
        let of = |metric| metrics.iter().find(|m: &&MetricScore| m.metric == metric).unwrap();
        assert!(
            (of(Metric::RewardDesirable).value - 0.05).abs() < 1e-12 && of(Metric::RewardDesirable).n == 2
        );
        assert!((of(Metric::RewardUndesirable).value - 0.1 / 3.0).abs() < 1e-12);
        let same: Vec<LabelLogps> =
            labels.iter().map(|e| LabelLogps { logp: e.reference + 1e-5, ..e.clone() }).collect();
        assert_eq!(auc(&same).value, 0.5, "a policy that equals its reference but for rounding");
    }

    /// Prompts of one to four completions, three in ten of them desirable; two policies, correlated. Claimed variances against
    /// the spread over repeated experiments, of the area and of the difference of two.
    #[test]
    fn standard_errors_match_the_spread_of_repeated_experiments() {
        let mut rng = rng(3, "labels");
        let (mut areas, mut differences) = (Vec::new(), Vec::new());
        let suite = find("heldout-labels", "preference").unwrap();
        for _ in 0..1500 {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for prompt in 0..70 {
                let effect = 2.0 * rng.random::<f64>();
                for _ in 0..rng.random_range(1..=4) {
                    let desirable = rng.random::<f64>() < 0.3;
                    let shared = effect + 3.0 * rng.random::<f64>() + if desirable { 0.8 } else { 0.0 };
                    a.push(label(a.len(), prompt, desirable, shared));
                    b.push(label(b.len(), prompt, desirable, shared + 2.0 * rng.random::<f64>()));
                }
            }
            let values = |labels: &[LabelLogps]| -> Vec<f64> {
                let (examples, _) = score_labels(labels, &suite, 0.1);
                examples.iter().filter(|e| e.metric == Metric::LabelAuc).map(|e| e.value).collect()
            };
            let difference: Vec<f64> = values(&a).iter().zip(values(&b)).map(|(x, y)| x - y).collect();
            let clusters: Vec<&str> = a.iter().map(|e| e.cluster.as_str()).collect();
            let found = auc(&a);
            areas.push((found.value, found.standard_error));
            let e = estimate::mean(&difference, &clusters);
            assert!((e.value - (found.value - auc(&b).value)).abs() < 1e-12);
            differences.push((e.value, e.standard_error));
        }
        for estimates in [areas, differences] {
            let n = estimates.len() as f64;
            let centre = estimates.iter().map(|e| e.0).sum::<f64>() / n;
            let spread = estimates.iter().map(|e| (e.0 - centre).powi(2)).sum::<f64>() / (n - 1.0);
            let claimed = estimates.iter().map(|e| e.1.powi(2)).sum::<f64>() / n;
            assert!((claimed / spread - 1.0).abs() < 0.12, "claimed variance {claimed}, observed {spread}");
        }
    }

    #[test]
    fn one_label_alone_is_refused() {
        let example = UnpairedExample {
            id: String::new(),
            prompt: "p".into(),
            completion: "c".into(),
            desirable: true,
            subset: String::new(),
        };
        let text = render(&check_both(&[example.clone(), example], "heldout-labels").unwrap_err());
        assert!(text.contains("there are 2 and 0") && text.contains("heldout-prompts"), "{text}");
    }
}
