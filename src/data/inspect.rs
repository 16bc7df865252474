//! A linter of data as the model will see it: `kto-eval data inspect`.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::base::error::Result;

use super::tokenize::tokenize;
use super::tokenizer::Tokenizer;
use super::types::{Dataset, TokenizeStats};

/// Ids that a finding shows.
const SHOWN_IDS: usize = 3;
/// Examples that are shown token by token.
const SHOWN_EXAMPLES: usize = 3;
/// Characters that are shown of each part of an example, at its end (prompt) or beginning (completion).
const SHOWN_CHARS: usize = 400;

/// What [`inspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inspection {
    /// Pairs, or unpaired examples.
    pub examples: usize,
    pub paired: bool,
    pub desirable: usize,
    pub undesirable: usize,
    pub stats: TokenizeStats,
    /// In the order of [`CHECKS`]; those that found nothing are absent.
    pub findings: Vec<Finding>,
    pub prompt_tokens: Quantiles,
    pub completion_tokens: Quantiles,
    /// Examples as the model sees them.
    pub shown: Vec<String>,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub what: String,
    pub count: usize,
    /// Of the first few.
    pub ids: Vec<String>,
}

/// Nearest-rank quantiles of a length in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    pub p5: usize,
    pub p50: usize,
    pub p95: usize,
    pub p99: usize,
    pub max: usize,
}

/// Prompts that the data should not share, and where they stand: a split, a suite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    pub name: String,
    pub prompts: Vec<String>,
}

impl Others {
    /// The prompts of another split.
    pub fn of(name: &str, dataset: &Dataset) -> Self {
        let prompts = views(dataset).iter().map(|view| view.prompt.to_owned()).collect();
        Self { name: name.to_owned(), prompts }
    }
}

/// What is looked for, in the order of the report; shared prompts come last.
const CHECKS: [&str; 11] = [
    BOS_TWICE,
    EOS_TWICE,
    EOS_INSIDE,
    CUT,
    BEYOND,
    DROPPED_LONG,
    DROPPED_EMPTY,
    MERGED,
    SAME_SIDES,
    REPEATED_PROMPT,
    UNKNOWN_TOKEN,
];
const BOS_TWICE: &str = "BOS twice at the beginning (a template writes it, and the tokenizer adds it)";
const EOS_TWICE: &str = "EOS twice at the end (the text holds it, and a template writes it)";
const EOS_INSIDE: &str = "EOS before the end of the completion (a template writes it, or the text holds it)";
const CUT: &str = "cut at max_length, so that EOS is missing";
const BEYOND: &str = "longer than the positions that the model was made for (max_position_embeddings)";
const DROPPED_LONG: &str = "dropped: the prompt fills max_length";
const DROPPED_EMPTY: &str = "dropped: the completion (or the prompt) is empty";
const MERGED: &str = "tokens merge across the boundary of prompt and completion";
const SAME_SIDES: &str = "chosen and rejected are the same";
const REPEATED_PROMPT: &str = "prompt stands in an earlier example too";
const SHARED_PROMPT: &str = "prompt stands too in";
const UNKNOWN_TOKEN: &str = "holds the unknown token";

/// Tokenizes `dataset` and looks for what goes wrong in practice, and for prompts that `others` have too.
///
/// # Errors
/// If the tokenizer fails.
pub fn inspect(
    dataset: &Dataset,
    others: &[Others],
    tokenizer: &Tokenizer,
    max_length: usize,
    positions: Option<usize>,
) -> Result<Inspection> {
    let others: Vec<(String, BTreeSet<&str>)> = others
        .iter()
        .map(|o| (format!("{SHARED_PROMPT} {}", o.name), o.prompts.iter().map(|p| p.trim()).collect()))
        .collect();
    let report = Inspection::default();
    let mut linter = Linter { tokenizer, max_length, positions, report, lengths: <_>::default() };
    linter.report.paired = matches!(dataset, Dataset::Paired(_));
    let mut seen = BTreeSet::new();
    for view in views(dataset) {
        linter.report.examples += 1;
        if !seen.insert(view.prompt) {
            linter.find(REPEATED_PROMPT, view.id);
        }
        for (what, _) in others.iter().filter(|(_, prompts)| prompts.contains(view.prompt.trim())) {
            linter.find(what, view.id);
        }
        if let [(a, _), (b, _)] = view.completions[..]
            && a == b
        {
            linter.find(SAME_SIDES, view.id);
        }
        linter.example(&view)?;
    }
    Ok(linter.finish())
}

/// A pair, or an unpaired example.
struct View<'a> {
    id: &'a str,
    prompt: &'a str,
    /// Each with its label.
    completions: Vec<(&'a str, bool)>,
}

fn views(dataset: &Dataset) -> Vec<View<'_>> {
    match dataset {
        Dataset::Paired(pairs) => pairs
            .iter()
            .map(|p| View {
                id: &p.id,
                prompt: &p.prompt,
                completions: vec![(&p.chosen, true), (&p.rejected, false)],
            })
            .collect(),
        Dataset::Unpaired(examples) => examples
            .iter()
            .map(|e| View { id: &e.id, prompt: &e.prompt, completions: vec![(&e.completion, e.desirable)] })
            .collect(),
    }
}

struct Linter<'a> {
    tokenizer: &'a Tokenizer,
    max_length: usize,
    /// The context that the model was made for, where it is known.
    positions: Option<usize>,
    report: Inspection,
    /// Of prompts and of completions.
    lengths: [Vec<usize>; 2],
}

impl Linter<'_> {
    fn find(&mut self, what: &str, id: &str) {
        let findings = &mut self.report.findings;
        let at = findings.iter().position(|f| f.what == what).unwrap_or_else(|| {
            findings.push(Finding { what: what.to_owned(), count: 0, ids: Vec::new() });
            findings.len() - 1
        });
        findings[at].count += 1;
        if findings[at].ids.len() < SHOWN_IDS && !findings[at].ids.iter().any(|known| known == id) {
            findings[at].ids.push(id.to_owned());
        }
    }

    fn example(&mut self, view: &View) -> Result<()> {
        let mut dropped = false;
        for &(completion, desirable) in &view.completions {
            let label = if desirable { &mut self.report.desirable } else { &mut self.report.undesirable };
            *label += 1;
            let Some(tokenized) = tokenize(view.prompt, completion, self.tokenizer, self.max_length)? else {
                let long = self.tokenizer.encode(view.prompt)?.len() >= self.max_length;
                // Of a pair once: it is one example that is dropped.
                if !std::mem::replace(&mut dropped, true) {
                    self.find(if long { DROPPED_LONG } else { DROPPED_EMPTY }, view.id);
                }
                continue;
            };
            let (ids, at) = (&tokenized.sequence.ids, tokenized.sequence.prompt_len);
            let (eos, bos) = (self.tokenizer.eos(), self.tokenizer.bos());
            // A template may put a line break after the EOS that it writes.
            let end = self.end(&ids[at..])?;
            let ends = &ids[at..at + end];
            let inside = &ends[..ends.iter().rposition(|&id| id != eos).map_or(0, |last| last + 1)];
            for (applies, what) in [
                (bos.is_some_and(|bos| ids.starts_with(&[bos, bos])), BOS_TWICE),
                (ends.ends_with(&[eos, eos]), EOS_TWICE),
                (inside.contains(&eos), EOS_INSIDE),
                (tokenized.cut, CUT),
                (self.positions.is_some_and(|most| ids.len() > most), BEYOND),
                (tokenized.merged, MERGED),
                (self.tokenizer.unknown().is_some_and(|unknown| ids.contains(&unknown)), UNKNOWN_TOKEN),
            ] {
                if applies {
                    self.find(what, view.id);
                }
            }
            self.report.stats.count(&tokenized);
            self.lengths[0].push(at);
            self.lengths[1].push(ids.len() - at);
            if self.report.shown.len() < SHOWN_EXAMPLES {
                self.report.shown.push(self.show(view.id, desirable, ids, at)?);
            }
        }
        self.report.stats.dropped += usize::from(dropped);
        self.report.stats.examples += usize::from(!dropped);
        Ok(())
    }

    /// Length of a completion without the white space after its EOS; all of it where that is not how it ends.
    fn end(&self, completion: &[u32]) -> Result<usize> {
        let Some(at) = completion.iter().rposition(|&id| id == self.tokenizer.eos()) else {
            return Ok(completion.len());
        };
        let rest = self.tokenizer.decode_all(&completion[at + 1..])?;
        Ok(if rest.trim().is_empty() { at + 1 } else { completion.len() })
    }

    /// The prompt, which is masked, in ⟦ ⟧; then the completion, its tokens parted by `·`.
    fn show(&self, id: &str, desirable: bool, ids: &[u32], at: usize) -> Result<String> {
        let label = if desirable { "desirable" } else { "undesirable" };
        let prompt = self.tokenizer.decode_all(&ids[..at])?;
        let skipped = prompt.chars().count().saturating_sub(SHOWN_CHARS);
        let tail: String = prompt.chars().skip(skipped).collect();
        let more = if skipped > 0 { "… " } else { "" };
        let mut tokens = String::new();
        for id in &ids[at..] {
            if tokens.chars().count() > SHOWN_CHARS {
                tokens.push_str(" …");
                break;
            }
            if !tokens.is_empty() {
                tokens.push('·');
            }
            tokens.push_str(&self.tokenizer.decode_all(&[*id])?);
        }
        Ok(format!("{id} ({label})\n⟦{more}{tail}⟧{tokens}"))
    }

    fn finish(self) -> Inspection {
        let mut report = self.report;
        let place = |f: &Finding| CHECKS.iter().position(|what| *what == f.what).unwrap_or(CHECKS.len());
        report.findings.sort_by_key(place);
        [report.prompt_tokens, report.completion_tokens] = self.lengths.map(Quantiles::of);
        report
    }
}

impl Quantiles {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let n = lengths.len();
        let at =
            |share: f64| lengths.get(((share * n as f64).ceil() as usize).clamp(1, n.max(1)) - 1).copied();
        let [p5, p50, p95, p99, max] =
            [0.05, 0.5, 0.95, 0.99, 1.0].map(|share| at(share).unwrap_or_default());
        Self { p5, p50, p95, p99, max }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.paired { "pairs" } else { "unpaired examples" };
        let Self { examples, desirable, undesirable, stats, .. } = self;
        writeln!(f, "{examples} {kind}: {desirable} desirable and {undesirable} undesirable completions")?;
        writeln!(
            f,
            "{} kept, {} dropped; {} prompt and {} completion tokens",
            stats.examples, stats.dropped, stats.prompt_tokens, stats.completion_tokens
        )?;
        writeln!(
            f,
            "\n{:<12} {:>6} {:>6} {:>6} {:>6} {:>6}",
            "tokens", "5 %", "50 %", "95 %", "99 %", "most"
        )?;
        for (name, q) in [("prompt", self.prompt_tokens), ("completion", self.completion_tokens)] {
            writeln!(f, "{name:<12} {:>6} {:>6} {:>6} {:>6} {:>6}", q.p5, q.p50, q.p95, q.p99, q.max)?;
        }
        writeln!(f, "\nfindings: {}", if self.findings.is_empty() { "none" } else { "" })?;
        for Finding { what, count, ids } in &self.findings {
            writeln!(
                f,
                "{count:>7}  {what} ({}{})",
                ids.join(", "),
                if *count > ids.len() { ", …" } else { "" }
            )?;
        }
        writeln!(f, "\nas the model sees it (⟦masked⟧, then the tokens that a loss reads):")?;
        for example in &self.shown {
            writeln!(f, "\n{example}")?;
        }
        Ok(())
    }
}
