//! Suites on any model, trained anywhere: no plan, no training.

use std::path::PathBuf;

use candle_core::Device;

use super::judges::Judges;
use super::llm::usage;
use super::models::dtype;
use super::observer::Observer;
use super::prepare::tell_apart;
use super::rows::{self, Owner};
use super::run::{SCORE_BETA, SLOTS};
use super::source::{Opened, open, writes};
use crate::base::error::{Context, HintExt, Result, anyhow, ensure};
use crate::base::hash::Hasher;
use crate::data::{Dataset, Sequence, Tokenizer, carves, load_heldout, load_with};
use crate::model::Decoder;
use crate::plan::{DataSpec, Dtype, JudgeSpec, Quantize};
use crate::record::{JudgeUsage, LogpRow, ScoreFolder, ScoreRow};
use crate::suite::logps::{control_ids, policy_logps};
use crate::suite::preference::PairLogps;
use crate::suite::{JudgeKind, Kind, Metric, OpponentKind, ScoreContext, ScoredSuite, Suite, score_with};

/// What to score, and on what.
#[derive(Clone, Debug)]
pub struct SuiteRequest {
    pub model: String,
    /// What implicit rewards and divergence are measured against, and the opponent `base`; without one, metrics
    /// that need it are left out.
    pub reference: Option<String>,
    pub revision: String,
    pub dtype: Dtype,
    /// How the weights are kept in memory.
    pub quantize: Quantize,
    /// For suites with `source = "plan"`; an empty source: none.
    pub data: DataSpec,
    /// These ask about what a comparison that trains on `data.split` holds out, and not about `data.split`.
    pub heldout: bool,
    /// By name or path; `preference/world` where two kinds share a name.
    pub suites: Vec<Suite>,
    pub judge: JudgeSpec,
    pub seeds: Vec<u64>,
    pub max_examples: usize,
    pub out: PathBuf,
    /// Delete the scores that the folder holds.
    pub force: bool,
}

impl SuiteRequest {
    /// Hash of all that is asked, wherever it is written, and wherever and how patiently the judge is asked.
    fn address(&self) -> String {
        let JudgeSpec { model, template, reward_model, .. } = self.judge.clone();
        let judge = JudgeSpec { model, template, reward_model, ..JudgeSpec::default() };
        let asked = Self { out: PathBuf::new(), force: false, judge, ..self.clone() };
        Hasher::new("kto-eval/score").part(format!("{asked:?}").as_bytes()).hex()
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct SuiteScores {
    /// All rows of `scores.csv`.
    pub scores: Vec<ScoreRow>,
    /// What the language model that judged was asked.
    pub judge: Option<JudgeUsage>,
}

/// The name of the scored model in the rows.
const MODEL: &str = "model";

/// Scores a model on suites; rows are written suite by suite, so that a failure keeps what was done.
///
/// # Errors
/// A model, data or suite that cannot be read, a judge that is down.
pub fn score_suites(
    request: &SuiteRequest,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<SuiteScores> {
    let mut suites = request.suites.clone();
    tell_apart(&mut suites)?;
    let judges = Judges::of_suites(&suites, &request.judge, &device)?;
    for suite in &mut suites {
        without_reference(suite, request.reference.is_some())?;
    }
    let mut folder = ScoreFolder::open(&request.out, request.force, &request.address())?;
    let models = Models::load(request, &device)?;
    let heldout = heldout(request, &suites, &models.tokenizer, observer)?;
    let mut found = SuiteScores::default();
    for suite in &suites {
        for (i, &seed) in request.seeds.iter().enumerate() {
            // Nothing is drawn for a preference suite.
            if i > 0 && suite.kind == Kind::Preference {
                continue;
            }
            observer.stage(&format!("scoring {} on {} (seed {seed})", request.model, suite.name));
            let before = judges.tally();
            let job = Job { request, models: &models, heldout: &heldout, suite, seed, judges: &judges };
            let result = job.score(&mut folder, &mut found.scores, observer);
            judges.remarks(&before).iter().for_each(|note| observer.note(note));
            if let Some(judge) = judges.llm().filter(|_| suite.judge == JudgeKind::Llm) {
                found.judge = Some(usage(&request.judge, &before, &judge.tally()).add_to(folder.dir())?);
            }
            result?;
        }
    }
    folder.finish()?;
    Ok(found)
}

struct Models {
    tokenizer: Tokenizer,
    policy: Decoder,
    reference: Option<Decoder>,
    /// The longest control text that either model is asked after.
    control_tokens: usize,
}

impl Models {
    fn load(request: &SuiteRequest, device: &Device) -> Result<Self> {
        let dtype = dtype(request.dtype, device)?;
        let Opened { decoder: policy, tokenizer_dir, .. } =
            open(&request.model, &request.revision, dtype, device, request.quantize)?;
        writes(&policy, &request.model)?;
        let tokenizer = Tokenizer::load(&tokenizer_dir)?;
        tokenizer.check_fits(policy.config().vocab).with_context(|| format!("model {}", request.model))?;
        let load = |source: &String| {
            let decoder = open(source, &request.revision, dtype, device, request.quantize)?.decoder;
            writes(&decoder, source)?;
            let (theirs, ours) = (decoder.config().vocab, policy.config().vocab);
            ensure!(
                theirs == ours,
                "reference {source}: its vocabulary has {theirs} tokens, the model's {ours}; log-probs cannot be \
                 compared"
            );
            Ok(decoder)
        };
        let reference = request.reference.as_ref().map(load).transpose()?;
        let mut control_tokens = 0;
        for model in [Some(&policy), reference.as_ref()].into_iter().flatten() {
            control_tokens = control_tokens.max(control_ids(model, &tokenizer)?.len());
        }
        Ok(Self { tokenizer, policy, reference, control_tokens })
    }
}

/// Takes out what cannot be measured without a reference.
fn without_reference(suite: &mut Suite, has_reference: bool) -> Result<()> {
    if has_reference {
        return Ok(());
    }
    let relative = [
        Metric::RewardAccuracy,
        Metric::Margin,
        Metric::RewardChosen,
        Metric::RewardRejected,
        Metric::Brier,
        Metric::CalibrationError,
        Metric::KlSequence,
        Metric::KlPerToken,
        Metric::WinRateBase,
    ];
    suite.metrics.retain(|m| !relative.contains(m));
    suite.opponents.retain(|o| *o != OpponentKind::Base);
    ensure!(
        !suite.metrics.is_empty(),
        "suite `{}` measures nothing without a reference; name one with --reference",
        suite.name
    );
    Ok(())
}

fn heldout(
    request: &SuiteRequest,
    suites: &[Suite],
    tokenizer: &Tokenizer,
    observer: &mut dyn Observer,
) -> Result<Dataset> {
    let Some(suite) = suites.iter().find(|s| s.source == "plan") else {
        return Ok(Dataset::Paired(Vec::new()));
    };
    if request.data.source.is_empty() {
        return Err(anyhow!(
            "suite `{}` is drawn from the held-out split of some data, and none is named",
            suite.name
        ))
        .hint("name it with --data: a hub id, a file, a directory, or world");
    }
    let spec = DataSpec { max_examples: 0, ..request.data.clone() };
    let loaded = match request.heldout {
        true => load_heldout(&spec, &tokenizer.template())?,
        false => load_with(&spec, &spec.split, &tokenizer.template())?,
    };
    loaded.notes.iter().for_each(|note| observer.note(note));
    if !request.heldout && carves(&DataSpec { split: "train".into(), ..spec.clone() }) {
        observer.note(&format!(
            "all of {} is asked about; a comparison on it trains on a part of that (--heldout: what it holds out)",
            spec.source
        ));
    }
    Ok(loaded.dataset)
}

/// One suite under one seed.
struct Job<'a> {
    request: &'a SuiteRequest,
    models: &'a Models,
    heldout: &'a Dataset,
    suite: &'a Suite,
    seed: u64,
    judges: &'a Judges,
}

impl Job<'_> {
    fn score(
        &self,
        folder: &mut ScoreFolder,
        scores: &mut Vec<ScoreRow>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let base = match &self.models.reference {
            Some(reference) if self.suite.kind == Kind::Generation => {
                let base = self.of(reference, None)?;
                scores.extend(self.write(folder, &Owner::base(self.seed), &base)?);
                Some(base)
            }
            _ => None,
        };
        let result = self.of(&self.models.policy, base.as_ref())?;
        for remark in result.remarks() {
            observer.note(&format!("{}: {remark}", self.suite.name));
        }
        let owner = Owner { run: MODEL.to_owned(), arm: MODEL.to_owned(), seed: self.seed };
        scores.extend(self.write(folder, &owner, &result)?);
        Ok(())
    }

    fn of(&self, policy: &Decoder, base: Option<&ScoredSuite>) -> Result<ScoredSuite> {
        let width = if self.suite.kind == Kind::Preference { 2 } else { 1 };
        let mut logps = |sequences: &[Sequence]| match &self.models.reference {
            // No remaining metric needs it.
            None => Ok(vec![0.0; sequences.len()]),
            Some(reference) => {
                let groups: Vec<Vec<&Sequence>> =
                    sequences.chunks(width).map(|c| c.iter().collect()).collect();
                policy_logps(reference, &self.models.tokenizer, &groups)
            }
        };
        let is_reference = self.models.reference.as_ref().is_some_and(|r| std::ptr::eq(policy, r));
        let mut context = ScoreContext {
            policy,
            reference: if is_reference { None } else { Some(&mut logps) },
            tokenizer: &self.models.tokenizer,
            data: &self.request.data,
            heldout: self.heldout,
            base,
            seed: self.seed,
            max_examples: self.request.max_examples,
            reserve: self.models.control_tokens,
            beta: SCORE_BETA,
            slots: SLOTS,
        };
        score_with(&mut context, self.suite, self.judges.of(self.suite))
    }

    fn write(&self, folder: &mut ScoreFolder, owner: &Owner, result: &ScoredSuite) -> Result<Vec<ScoreRow>> {
        let scores = rows::scores(owner, self.suite, result);
        folder.scores(&scores)?;
        folder.examples(&rows::examples(owner, self.suite, result))?;
        folder.samples(&rows::samples(owner, self.suite, result))?;
        folder.judgments(&rows::judgments(owner, self.suite, result))?;
        folder.logps(&self.logps(owner, result))?;
        Ok(scores)
    }

    fn logps(&self, owner: &Owner, result: &ScoredSuite) -> Vec<LogpRow> {
        let known = self.models.reference.is_some();
        let sides = result.pairs.iter().flat_map(|p| {
            [
                (p, "chosen", p.chosen_tokens, p.chosen, p.reference_chosen),
                (p, "rejected", p.rejected_tokens, p.rejected, p.reference_rejected),
            ]
        });
        let row = |(pair, side, tokens, logp, reference): (&PairLogps, &str, usize, f64, f64)| LogpRow {
            run: owner.run.clone(),
            suite: self.suite.name.clone(),
            subset: pair.subset.clone(),
            example: pair.example.clone(),
            side: side.to_owned(),
            completion_tokens: tokens as u64,
            logp,
            reference_logp: known.then_some(reference),
            reward: known.then_some(SCORE_BETA * (logp - reference)),
        };
        sides.map(row).collect()
    }
}
