//! The entry point: one policy, one suite.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Kind, Suite};
use super::judge::{Judge, Task};
use super::logps::{Policy, policy_logps};
use super::lots::draw;
use super::preference::{PairLogps, incomplete, score_pairs};
use super::rows;
use super::scored::{Exclusion, ScoredSuite};
use super::{generation, labels};
use crate::base::error::{Context, HintExt, Result, anyhow, ensure};
use crate::data::world::World;
use crate::data::{Dataset, PreferencePair, Sequence, Tokenizer, load_with, tokenize_pairs};
use crate::plan::DataSpec;

/// Σ log π_ref over the completion of each sequence, in nats, in order; usually a cache in front of the
/// reference model.
pub type Reference<'a> = dyn FnMut(&[Sequence]) -> Result<Vec<f64>> + 'a;

/// What scoring a policy needs, beside the suite.
pub struct ScoreContext<'a, P: Policy> {
    pub policy: &'a P,
    /// `None`: the policy is its own reference, so that its rewards and its divergence are 0.
    pub reference: Option<&'a mut Reference<'a>>,
    pub tokenizer: &'a Tokenizer,
    /// The plan's data: the options of its world, and where sequences are cut.
    pub data: &'a DataSpec,
    /// The held-out split of the plan's data (suites with `source = "plan"`).
    pub heldout: &'a Dataset,
    /// The starting checkpoint's result on the same suite: its samples are the opponent `base`. `None` while
    /// the starting checkpoint itself is scored; sentinels play then.
    pub base: Option<&'a ScoredSuite>,
    /// The run's seed: arms with the same seed sample with the same random numbers.
    pub seed: u64,
    /// Score at most so many examples, drawn by their ids; 0: all.
    pub max_examples: usize,
    /// Tokens of `max_length` that preference suites leave free, for the control text of a policy (CSFT) that is compared
    /// with this one: all are asked about the same text.
    pub reserve: usize,
    /// Strength β of the implicit reward β log π/π_ref.
    pub beta: f64,
    /// Sequences sampled at once.
    pub slots: usize,
}

impl<'a, P: Policy> ScoreContext<'a, P> {
    pub(super) fn source(&self) -> SuiteData<'a> {
        let Self { tokenizer, data, heldout, max_examples, .. } = *self;
        SuiteData { tokenizer, data, heldout, max_examples }
    }
}

/// Where the examples of suites come from; the fields are those of [`ScoreContext`].
#[derive(Clone, Copy)]
pub struct SuiteData<'a> {
    pub tokenizer: &'a Tokenizer,
    pub data: &'a DataSpec,
    pub heldout: &'a Dataset,
    pub max_examples: usize,
}

impl SuiteData<'_> {
    /// What each example of a suite asks, without solved examples and chat template.
    ///
    /// # Errors
    /// Where the suite's data cannot be read.
    pub fn prompts(&self, suite: &Suite) -> Result<Vec<String>> {
        let read: Result<Vec<String>> = match suite.kind {
            Kind::Preference => pairs(self, suite).map(|p| p.into_iter().map(|p| p.prompt).collect()),
            Kind::Labels => labels::examples(self, suite).map(|e| e.into_iter().map(|e| e.prompt).collect()),
            Kind::Generation => {
                tasks(self, suite).map(|t| t.iter().map(|t| t.request().to_owned()).collect())
            }
        };
        read.with_context(|| format!("reading suite `{}`", suite.name))
    }

    pub(super) fn spec(&self, suite: &Suite) -> DataSpec {
        DataSpec {
            source: suite.source.clone(),
            revision: suite.revision.clone(),
            config: suite.config.clone(),
            split: suite.split.clone(),
            format: suite.format,
            max_examples: 0,
            ..self.data.clone()
        }
    }
}

/// Scores a policy on a suite.
///
/// # Errors
/// Where the suite's data cannot be read (what is missing and where it was looked for), an id occurs twice,
/// or the model fails. Examples that cannot be scored are not an error: [`ScoredSuite::excluded`] lists them.
pub fn score<P: Policy>(ctx: &mut ScoreContext<P>, suite: &Suite) -> Result<ScoredSuite> {
    score_with(ctx, suite, None)
}

/// As [`score`]; `outside` judges a suite whose judge is a model: a language model or a reward model.
pub fn score_with<P: Policy>(
    ctx: &mut ScoreContext<P>,
    suite: &Suite,
    outside: Option<&dyn Judge>,
) -> Result<ScoredSuite> {
    let scored = match suite.kind {
        Kind::Preference => preference(ctx, suite),
        Kind::Labels => labels::score(ctx, suite),
        Kind::Generation => generation::score(ctx, suite, outside),
    };
    scored.with_context(|| format!("scoring suite `{}`", suite.name))
}

/// Log-probs by the policy and by the reference (the policy's own where there is none) of each sequence of `groups`, in order.
pub(super) fn both_logps<P: Policy>(
    ctx: &mut ScoreContext<P>,
    groups: &[Vec<&Sequence>],
) -> Result<(Vec<f64>, Vec<f64>)> {
    let policy = policy_logps(ctx.policy, ctx.tokenizer, groups)?;
    let flat: Vec<Sequence> = groups.iter().flatten().map(|s| (*s).clone()).collect();
    let reference = match &mut ctx.reference {
        Some(reference) => reference(&flat).context("log-probs of the reference")?,
        None => policy.clone(),
    };
    ensure!(
        reference.len() == flat.len(),
        "{} reference log-probs for {} sequences",
        reference.len(),
        flat.len()
    );
    Ok((policy, reference))
}

/// What is said where completions are cut at `most` tokens; `of`: how many there are.
pub(super) fn cut(cut: usize, of: usize, most: usize) -> Option<String> {
    (cut > 0).then(|| {
        format!("{cut} of {of} completions are cut, at {most} tokens with their prompts: their beginnings are scored")
    })
}

fn preference<P: Policy>(ctx: &mut ScoreContext<P>, suite: &Suite) -> Result<ScoredSuite> {
    let pairs = pairs(&ctx.source(), suite)?;
    unique(pairs.iter().map(|p| p.id.as_str()))?;
    let most = ctx.data.max_length.saturating_sub(ctx.reserve);
    let (tokenized, stats) = tokenize_pairs(&pairs, ctx.tokenizer, most)?;
    let by_id: BTreeMap<&str, &PreferencePair> = pairs.iter().map(|p| (p.id.as_str(), p)).collect();
    let groups: Vec<Vec<&Sequence>> = tokenized.iter().map(|p| vec![&p.chosen, &p.rejected]).collect();
    let (policy, reference) = both_logps(ctx, &groups)?;
    let mut logps = Vec::with_capacity(tokenized.len());
    for (pair, (policy, reference)) in tokenized.iter().zip(policy.chunks(2).zip(reference.chunks(2))) {
        let text = by_id[pair.id.as_str()];
        logps.push(PairLogps {
            example: pair.id.clone(),
            cluster: rows::cluster(&text.prompt),
            subset: pair.subset.clone(),
            chosen: policy[0],
            rejected: policy[1],
            reference_chosen: reference[0],
            reference_rejected: reference[1],
            chosen_tokens: pair.chosen.completion_len(),
            rejected_tokens: pair.rejected.completion_len(),
            chosen_bytes: bytes(&text.chosen, &pair.chosen, most, ctx.tokenizer)?,
        });
    }
    for p in &logps {
        ensure!(p.margin(ctx.beta).is_finite(), "example `{}`: the margin is not finite: {p:?}", p.example);
    }
    let (examples, metrics) = score_pairs(&logps, suite, ctx.beta);
    let excluded = dropped(&pairs, &logps);
    let cut = cut(stats.cut, policy.len(), most);
    let notes = cut.into_iter().chain(incomplete(&logps, suite)).collect();
    Ok(ScoredSuite { examples, metrics, excluded, notes, pairs: logps, ..ScoredSuite::default() })
}

/// UTF-8 bytes of a completion's text; of one that was cut at `most` tokens, of what is left of it.
fn bytes(text: &str, sequence: &Sequence, most: usize, tokenizer: &Tokenizer) -> Result<usize> {
    let whole = sequence.ids.len() < most || sequence.ids.last() == Some(&tokenizer.eos());
    if whole {
        Ok(text.len())
    } else {
        Ok(tokenizer.decode_all(sequence.completion())?.len().min(text.len()))
    }
}

fn dropped(pairs: &[PreferencePair], kept: &[PairLogps]) -> Vec<Exclusion> {
    let kept: BTreeSet<&str> = kept.iter().map(|p| p.example.as_str()).collect();
    let left_out = pairs.iter().filter(|p| !kept.contains(p.id.as_str()));
    let reason = "the prompt fills max_length, or a completion has no token";
    left_out.map(|p| Exclusion { example: p.id.clone(), reason: reason.to_owned() }).collect()
}

/// The pairs of a preference suite.
fn pairs(from: &SuiteData, suite: &Suite) -> Result<Vec<PreferencePair>> {
    if let Some(templates) = &suite.pair {
        return rows::pairs(&from.spec(suite), &suite.split, templates, from.max_examples);
    }
    let dataset = if suite.source == "plan" {
        from.heldout.clone()
    } else {
        load_with(&from.spec(suite), &suite.split, &from.tokenizer.template())?.dataset
    };
    let Dataset::Paired(pairs) = dataset else {
        return Err(anyhow!(
            "the data holds single completions with labels, and a preference suite needs pairs"
        ))
        .hint("take a label suite (heldout-labels) or a generation suite, or name a preference suite with data of its own");
    };
    Ok(draw(pairs, from.max_examples, |p| &p.id))
}

/// The prompts of a generation suite, each once.
pub(super) fn tasks(from: &SuiteData, suite: &Suite) -> Result<Vec<Task>> {
    let most = from.max_examples;
    let drawn = |tasks| draw(tasks, most, |t: &Task| &t.id);
    let tasks = match suite.source.as_str() {
        "plan" => drawn(prompts(from.heldout)),
        "world" => drawn(world_tasks(&World::new(&from.data.world)?)),
        _ => rows::tasks(&from.spec(suite), suite, &from.tokenizer.template(), most)?,
    };
    unique(tasks.iter().map(|t| t.id.as_str()))?;
    Ok(tasks)
}

fn world_tasks(world: &World) -> Vec<Task> {
    let task = |p: crate::data::world::WorldPrompt| Task {
        id: p.id,
        cluster: rows::cluster(&p.prompt),
        subset: p.kind,
        prompt: p.prompt,
        answer: Some(p.chosen),
        ..Task::default()
    };
    world.heldout_prompts().into_iter().map(task).collect()
}

/// The prompts of a data set, each once, where it stands first; its answer is the first chosen or desirable completion.
fn prompts(dataset: &Dataset) -> Vec<Task> {
    let task = |id: &str, subset: &str, prompt: &str, answer: Option<&str>| Task {
        id: id.to_owned(),
        cluster: rows::cluster(prompt),
        subset: subset.to_owned(),
        prompt: prompt.to_owned(),
        answer: answer.map(str::to_owned),
        ..Task::default()
    };
    let all: Vec<Task> = match dataset {
        Dataset::Paired(pairs) => {
            pairs.iter().map(|p| task(&p.id, &p.subset, &p.prompt, Some(&p.chosen))).collect()
        }
        Dataset::Unpaired(examples) => examples
            .iter()
            .map(|e| task(&e.id, &e.subset, &e.prompt, Some(e.completion.as_str()).filter(|_| e.desirable)))
            .collect(),
    };
    let (mut tasks, mut at) = (Vec::<Task>::new(), BTreeMap::new());
    for task in all {
        let i = *at.entry(task.prompt.clone()).or_insert(tasks.len());
        match tasks.get_mut(i) {
            Some(known) => known.answer = known.answer.take().or(task.answer),
            None => tasks.push(task),
        }
    }
    tasks
}

pub(super) fn unique<'a>(ids: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for id in ids {
        ensure!(seen.insert(id), "the id `{id}` occurs twice: scores are kept by id");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::UnpairedExample;

    #[test]
    fn a_prompt_keeps_its_desirable_completion_wherever_that_stands() {
        let example = |i: usize, prompt: &str, desirable: bool| UnpairedExample {
            id: i.to_string(),
            prompt: prompt.to_owned(),
            completion: format!("completion {i}"),
            desirable,
            subset: String::new(),
        };
        let rows = [(0, "p", false), (1, "q", true), (2, "p", true), (3, "p", true), (4, "r", false)];
        let tasks = prompts(&Dataset::Unpaired(rows.map(|(i, p, d)| example(i, p, d)).into()));
        let shown: Vec<_> = tasks.iter().map(|t| (t.id.as_str(), t.answer.as_deref())).collect();
        assert_eq!(shown, [("0", Some("completion 2")), ("1", Some("completion 1")), ("4", None)]);
    }
}
