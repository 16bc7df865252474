//! Generation suites: sample, judge, compare, and measure what alignment did to the text.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{JudgeKind, OpponentKind, Suite};
use super::estimate::{self, Estimate};
use super::judge::{ExactMatch, Gold, Grade, Instructions, Judge, Match, Task};
use super::logps::{Policy, control_ids};
use super::metric::{Aggregation, Metric};
use super::score::{ScoreContext, tasks};
use super::scored::{ALL, ExampleScore, Exclusion, MetricScore, Opponent, Sample, ScoredSuite};
use super::sentinel;
use super::side_effects::{distinct, repetition};
use crate::base::error::{Context, HintExt, Result, anyhow, ensure};
use crate::base::seed;
use crate::data::Sequence;
use crate::data::world::World;
use crate::model::generate::{Finish, Generation, Request, Text, generate};

/// What to do where a suite needs a language model as its judge and none is named.
pub const NO_JUDGE: &str = "name one with --judge-url URL --judge-model NAME (any OpenAI-compatible endpoint), or \
                            in the plan under [judge]; or take a suite with another judge";

/// Everything about one sample, before it is aggregated.
struct Scored<'a> {
    task: &'a Task,
    generation: Generation,
    grade: Grade,
    opponents: Vec<Opponent>,
    /// log π − log π_ref of the sample, where a metric needs it.
    log_ratio: f64,
}

pub(super) fn score<P: Policy>(
    ctx: &mut ScoreContext<P>,
    suite: &Suite,
    outside: Option<&dyn Judge>,
) -> Result<ScoredSuite> {
    let world = if suite.judge == JudgeKind::Gold { Some(World::new(&ctx.data.world)?) } else { None };
    let own = judge(suite, world.as_ref())?;
    let judge = if from_outside(suite) { outside } else { own.as_deref() };
    if judge.is_none() && suite.judge != JudgeKind::None {
        return Err(anyhow!("suite `{}` needs a judge from outside, and none is given", suite.name))
            .hint(NO_JUDGE);
    }
    let mut tasks = tasks(&ctx.source(), suite)?;
    let mut excluded = refused(judge, &mut tasks)?;
    let generations = sample(ctx, suite, &tasks, &mut excluded)?;
    let by_id: BTreeMap<&str, &Task> = tasks.iter().map(|t| (t.id.as_str(), t)).collect();
    let log_ratios = log_ratios(ctx, suite, &generations)?;
    let written: Vec<(&Task, &str)> =
        generations.iter().map(|g| (by_id[g.id.as_str()], g.text.as_str())).collect();
    let grades = match judge {
        Some(judge) => judge.grades(&written)?,
        None => vec![Grade::default(); generations.len()],
    };
    let tasks: Vec<&Task> = written.iter().map(|(task, _)| *task).collect();
    let mut scored = Vec::with_capacity(generations.len());
    for (((generation, log_ratio), task), grade) in
        generations.into_iter().zip(log_ratios).zip(tasks).zip(grades)
    {
        scored.push(Scored { task, generation, grade, opponents: Vec::new(), log_ratio });
    }
    let mut sentinels = Vec::new();
    if let Some(judge) = judge.filter(|_| !suite.opponents.is_empty()) {
        let base = base_samples(ctx.base);
        for kind in &suite.opponents {
            play(judge, *kind, &base, &mut scored)?;
        }
        if ctx.base.is_none() {
            let own: Vec<(&Task, &str)> =
                scored.iter().map(|s| (s.task, s.generation.text.as_str())).collect();
            sentinels = sentinel::play(judge, &own, &suite.opponents)?;
        }
    }
    excluded.extend(invalid(&scored));
    if suite.judge == JudgeKind::RewardModel {
        excluded.extend(unscored(&scored));
    }
    let (examples, metrics) = aggregate(&scored, suite);
    Ok(ScoredSuite {
        examples,
        metrics,
        samples: scored.into_iter().map(record).collect(),
        sentinels,
        excluded,
        ..ScoredSuite::default()
    })
}

/// Judgments that are no valid answer: they count as nothing, and are shown.
fn invalid<'a>(scored: &'a [Scored]) -> impl Iterator<Item = Exclusion> + 'a {
    scored.iter().flat_map(|s| {
        s.opponents.iter().filter(|o| o.outcome.preference.is_none()).map(|o| Exclusion {
            example: s.task.id.clone(),
            reason: format!("the judge gave no valid answer against `{}`", o.kind.name()),
        })
    })
}

/// Samples that a reward model cannot read to their end.
fn unscored<'a>(scored: &'a [Scored]) -> impl Iterator<Item = Exclusion> + 'a {
    let reason = "prompt and sample are longer than the reward model's context";
    scored
        .iter()
        .filter(|s| s.grade.reward.is_none())
        .map(|s| Exclusion { example: s.task.id.clone(), reason: reason.to_owned() })
}

/// Whether the judge is a model that the suite does not bring.
fn from_outside(suite: &Suite) -> bool {
    matches!(suite.judge, JudgeKind::Llm | JudgeKind::RewardModel)
}

/// The suite's own judge; models come from outside.
fn judge<'a>(suite: &Suite, world: Option<&'a World>) -> Result<Option<Box<dyn Judge + 'a>>> {
    Ok(match suite.judge {
        JudgeKind::None | JudgeKind::Llm | JudgeKind::RewardModel => None,
        JudgeKind::Gold => world.map(|w| Box::new(Gold(w)) as Box<dyn Judge>),
        JudgeKind::Checks => Some(Box::new(Instructions)),
        JudgeKind::ExactMatch => {
            let rule = suite.answer.as_ref().ok_or_else(|| anyhow!("judge exact-match needs `[answer]`"))?;
            Some(Box::new(ExactMatch::new(rule)?))
        }
    })
}

/// Takes out the tasks that the judge cannot judge.
fn refused(judge: Option<&dyn Judge>, tasks: &mut Vec<Task>) -> Result<Vec<Exclusion>> {
    let mut excluded = Vec::new();
    let Some(judge) = judge else { return Ok(excluded) };
    let mut kept = Vec::with_capacity(tasks.len());
    for task in tasks.drain(..) {
        match judge.refuses(&task)? {
            None => kept.push(task),
            Some(reason) => excluded.push(Exclusion { example: task.id, reason }),
        }
    }
    *tasks = kept;
    Ok(excluded)
}

fn sample<P: Policy>(
    ctx: &ScoreContext<P>,
    suite: &Suite,
    tasks: &[Task],
    excluded: &mut Vec<Exclusion>,
) -> Result<Vec<Generation>> {
    let control = control_ids(ctx.policy, ctx.tokenizer)?;
    let request = |t: &Task| {
        let mut prompt = ctx.tokenizer.encode(&t.prompt)?;
        prompt.extend(&control);
        Ok(Request { id: t.id.clone(), prompt })
    };
    let requests = tasks.iter().map(request).collect::<Result<Vec<_>>>()?;
    let decode = |ids: &[u32]| ctx.tokenizer.decode(ids);
    let text = Text { decode: &decode, eos: ctx.tokenizer.stops() };
    let name = format!("suite/{}/{}", suite.stem(), suite.decoding.seed);
    let generated =
        generate(ctx.policy, text, &requests, &suite.decoding, seed::derive(ctx.seed, &name), ctx.slots)?;
    excluded.extend(generated.refused.into_iter().map(|r| Exclusion { example: r.id, reason: r.reason }));
    ensure!(!generated.generations.is_empty(), "no prompt can be sampled: {}", summary(excluded));
    Ok(generated.generations)
}

fn summary(excluded: &[Exclusion]) -> String {
    let reasons: BTreeSet<&str> = excluded.iter().map(|e| e.reason.as_str()).collect();
    reasons.into_iter().take(3).collect::<Vec<_>>().join("; ")
}

/// log π − log π_ref of each sample; zeros where no metric asks for it, or the policy is its own reference.
///
/// log π is that of the distribution which the sample was drawn from: the prompt goes through the policy once.
fn log_ratios<P: Policy>(
    ctx: &mut ScoreContext<P>,
    suite: &Suite,
    generations: &[Generation],
) -> Result<Vec<f64>> {
    let asked = [Metric::KlSequence, Metric::KlPerToken].iter().any(|m| suite.metrics.contains(m));
    let Some(reference) = ctx.reference.as_mut().filter(|_| asked) else {
        return Ok(vec![0.0; generations.len()]);
    };
    // The policy's control tokens say nothing to the reference.
    let control = control_ids(ctx.policy, ctx.tokenizer)?.len();
    let sequence = |g: &Generation| {
        let prompt = &g.prompt[..g.prompt.len() - control];
        Sequence { ids: prompt.iter().chain(&g.tokens).copied().collect(), prompt_len: prompt.len() }
    };
    let sequences: Vec<Sequence> = generations.iter().map(sequence).collect();
    let reference = reference(&sequences).context("log-probs of the reference")?;
    ensure!(
        reference.len() == generations.len(),
        "{} reference log-probs for {} samples",
        reference.len(),
        generations.len()
    );
    Ok(generations.iter().zip(reference).map(|(g, r)| g.logp - r).collect())
}

fn base_samples(base: Option<&ScoredSuite>) -> BTreeMap<&str, &str> {
    let samples = base.map(|b| b.samples.as_slice()).unwrap_or_default();
    samples.iter().map(|s| (s.example.as_str(), s.completion.as_str())).collect()
}

/// Compares each sample with one opponent's completion, where there is one.
fn play(
    judge: &dyn Judge,
    kind: OpponentKind,
    base: &BTreeMap<&str, &str>,
    scored: &mut [Scored],
) -> Result<()> {
    let baseline = |s: &Scored| match kind {
        OpponentKind::Base => base.get(s.task.id.as_str()).map(|c| (*c).to_owned()),
        OpponentKind::Chosen => s.task.answer.clone(),
    };
    let pairs: Vec<(usize, String)> =
        scored.iter().enumerate().filter_map(|(i, s)| baseline(s).map(|c| (i, c))).collect();
    let matches: Vec<Match> = pairs
        .iter()
        .map(|(i, c)| Match { task: scored[*i].task, candidate: &scored[*i].generation.text, baseline: c })
        .collect();
    let outcomes = judge.compare(&matches)?;
    let theirs: Vec<(&Task, &str)> = pairs.iter().map(|(i, c)| (scored[*i].task, c.as_str())).collect();
    let rewards: Vec<Option<f64>> = judge.grades(&theirs)?.into_iter().map(|g| g.reward).collect();
    for (((i, completion), outcome), reward) in pairs.into_iter().zip(outcomes).zip(rewards) {
        scored[i].opponents.push(Opponent { kind, completion, reward, outcome });
    }
    Ok(())
}

/// The value of a metric that each sample has; `None` where this one has none (an invalid judgment, no
/// opponent).
fn value(s: &Scored, metric: Metric) -> Option<f64> {
    let tokens = &s.generation.tokens;
    let against = |kind| s.opponents.iter().find(|o| o.kind == kind).and_then(|o| o.outcome.preference);
    match metric {
        Metric::WinRateBase => against(OpponentKind::Base),
        Metric::WinRateChosen => against(OpponentKind::Chosen),
        Metric::FlipRate => share(s.opponents.iter().filter_map(|o| o.outcome.flipped)),
        Metric::InvalidJudgments => share(s.opponents.iter().map(|o| o.outcome.preference.is_none())),
        Metric::CompletionTokens => Some(tokens.len() as f64),
        Metric::Unfinished => Some(if s.generation.finish == Finish::Length { 1.0 } else { 0.0 }),
        Metric::Distinct1 => Some(distinct(tokens, 1)),
        Metric::Distinct2 => Some(distinct(tokens, 2)),
        Metric::Repetition => Some(repetition(tokens)),
        Metric::KlSequence => Some(s.log_ratio),
        _ => s.grade.values.iter().find(|(m, _)| *m == metric).map(|(_, v)| *v),
    }
}

/// Share of what holds; `None` of nothing.
fn share(holds: impl Iterator<Item = bool>) -> Option<f64> {
    let (n, true_ones) = holds.fold((0u32, 0u32), |(n, k), held| (n + 1, k + u32::from(held)));
    (n > 0).then(|| f64::from(true_ones) / f64::from(n))
}

fn aggregate(scored: &[Scored], suite: &Suite) -> (Vec<ExampleScore>, Vec<MetricScore>) {
    let (mut examples, mut metrics) = (Vec::new(), Vec::new());
    let subsets: BTreeSet<&str> =
        scored.iter().map(|s| s.task.subset.as_str()).filter(|s| !s.is_empty()).collect();
    for &metric in &suite.metrics {
        if metric.info().aggregation == Aggregation::Mean {
            let example = |s: &Scored| {
                Some(ExampleScore {
                    example: s.task.id.clone(),
                    cluster: s.task.cluster.clone(),
                    subset: s.task.subset.clone(),
                    metric,
                    value: value(s, metric)?,
                })
            };
            examples.extend(scored.iter().filter_map(example));
        }
        let mut push = |subset: &str, part: &[&Scored]| {
            if let Some(Estimate { value, n, standard_error }) = estimate_of(part, metric) {
                metrics.push(MetricScore { subset: subset.to_owned(), metric, value, n, standard_error });
            }
        };
        push(ALL, &scored.iter().collect::<Vec<_>>());
        if subsets.len() > 1 {
            for subset in &subsets {
                push(subset, &scored.iter().filter(|s| s.task.subset == *subset).collect::<Vec<_>>());
            }
        }
    }
    (examples, metrics)
}

fn estimate_of(part: &[&Scored], metric: Metric) -> Option<Estimate> {
    let terms = |s: &Scored| match metric {
        Metric::KlPerToken => Some((s.log_ratio, s.generation.tokens.len() as f64)),
        _ => s.grade.counts.iter().find(|(m, ..)| *m == metric).map(|(_, a, b)| (*a, *b)),
    };
    let whole = metric.info().aggregation == Aggregation::Whole;
    let with = |s: &&Scored| if whole { terms(s) } else { value(s, metric).map(|v| (v, 1.0)) };
    let kept: Vec<(f64, f64, &str)> =
        part.iter().filter_map(|s| with(s).map(|(x, y)| (x, y, s.task.cluster.as_str()))).collect();
    if kept.is_empty() {
        return None;
    }
    let x: Vec<f64> = kept.iter().map(|k| k.0).collect();
    let y: Vec<f64> = kept.iter().map(|k| k.1).collect();
    let clusters: Vec<&str> = kept.iter().map(|k| k.2).collect();
    Some(if whole { estimate::ratio(&x, &y, &clusters) } else { estimate::mean(&x, &clusters) })
}

fn record(s: Scored) -> Sample {
    Sample {
        example: s.task.id.clone(),
        cluster: s.task.cluster.clone(),
        subset: s.task.subset.clone(),
        prompt: s.task.prompt.clone(),
        tokens: s.generation.tokens.len(),
        finished: s.generation.finish != Finish::Length,
        completion: s.generation.text,
        reward: s.grade.reward,
        opponents: s.opponents,
    }
}
