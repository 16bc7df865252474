//! Continuous batching: every step advances all sequences under way by one token, and a finished one makes
//! room for the next at once. The prompt of a newcomer goes through in the same step as the others' tokens;
//! newcomers with the same prompt share that.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;

use super::choice::{Chooser, choose};
use super::decoding::Decoding;
use super::stop::StopStrings;
use crate::base::error::{Context, Result, ensure};
use crate::base::seed;

/// A language model that can be advanced token by token.
pub trait Advance {
    /// Keys and values of the sequences under way, one a slot.
    type Cache;

    /// Most tokens of a sequence, prompt and completion.
    fn context(&self) -> usize;

    /// Room for `slots` sequences of at most `capacity` tokens.
    fn new_cache(&self, slots: usize, capacity: usize) -> Result<Self::Cache>;

    /// Appends tokens to each named slot; the logits (n, v) after the last token of each, in that order.
    fn step(&self, cache: &mut Self::Cache, inputs: &[(usize, &[u32])]) -> Result<Tensor>;

    /// Makes slot `to`, which holds nothing, hold what slot `from` holds.
    fn fork(&self, cache: &mut Self::Cache, from: usize, to: usize) -> Result<()>;

    /// Forgets what a slot holds.
    fn clear(&self, cache: &mut Self::Cache, slot: usize);

    /// Bytes that such a cache occupies.
    fn cache_bytes(&self, slots: usize, capacity: usize) -> usize;
}

/// How token ids become text, and which ids end a completion.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub decode: &'a dyn Fn(&[u32]) -> Result<String>,
    pub eos: &'a [u32],
}

/// A prompt to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Unique; with the seed it determines the draw.
    pub id: String,
    pub prompt: Vec<u32>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Eos,
    /// A stop string.
    Stop,
    /// `max_new_tokens` or the model's context.
    Length,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub id: String,
    pub prompt: Vec<u32>,
    /// The tokens generated, EOS or the stop string's tokens included.
    pub tokens: Vec<u32>,
    /// Σ log π(token | before) over the tokens generated, in nats: π as the model has it, at temperature 1 with nothing
    /// filtered or penalised, whatever the decoding was.
    pub logp: f64,
    /// Without EOS, without the stop string and what follows it.
    pub text: String,
    pub finish: Finish,
}

/// A request that was not run, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub id: String,
    pub reason: String,
}

/// What a call of [`generate`] did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// In the order of the requests.
    pub generations: Vec<Generation>,
    pub refused: Vec<Refused>,
    pub steps: usize,
    /// Of prompts computed: one that newcomers share, once.
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Memory of the KV cache.
    pub cache_bytes: usize,
}

/// A sequence under way in a slot.
struct Running {
    request: usize,
    slot: usize,
    /// Prompt and completion so far.
    ids: Vec<u32>,
    prompt_len: usize,
    limit: usize,
    /// Σ log π of the completion so far.
    logp: f64,
    rng: ChaCha8Rng,
    /// Of a newcomer: the one before it that brings the same prompt, as a place among those under way.
    shares: Option<usize>,
}

/// Continues every request, at most `slots` at a time.
///
/// A completion depends on the model, its prompt, `decoding`, `seed` and its id alone: neither `slots` nor
/// the other requests nor their order change it.
///
/// # Errors
/// On decoding settings out of range, duplicate ids, `slots` of 0, and where the model fails or returns
/// NaN. A prompt that is empty or leaves no room in the context is refused and listed, not an error.
pub fn generate<M: Advance>(
    model: &M,
    text: Text,
    requests: &[Request],
    decoding: &Decoding,
    seed: u64,
    slots: usize,
) -> Result<Generated> {
    decoding.check()?;
    ensure!(slots > 0, "generation needs at least one slot");
    check_ids(requests)?;
    let mut done = Generated::default();
    let (runnable, refused) = split(requests, model.context());
    done.refused = refused;
    let limit = |i: &usize| (requests[*i].prompt.len() + decoding.max_new_tokens).min(model.context());
    let Some(capacity) = runnable.iter().map(limit).max() else { return Ok(done) };
    let slots = slots.min(runnable.len());
    let mut cache = model.new_cache(slots, capacity)?;
    done.cache_bytes = model.cache_bytes(slots, capacity);
    let stops = StopStrings::new(&decoding.stop);
    let mut waiting = runnable.iter();
    let mut running: Vec<Running> = Vec::with_capacity(slots);
    let mut free: Vec<usize> = (0..slots).rev().collect();
    let mut finished: Vec<(usize, Generation)> = Vec::with_capacity(runnable.len());
    loop {
        while let Some(slot) = free.pop() {
            let Some(&i) = waiting.next() else { break };
            let newcomer = Running::new(&requests[i], i, slot, limit(&i), seed);
            // A newcomer has no token yet; neighbours are the ones that may share.
            let shares = match running.last() {
                Some(last) if last.ids == newcomer.ids && last.is_new() => {
                    last.shares.or(Some(running.len() - 1))
                }
                _ => None,
            };
            running.push(Running { shares, ..newcomer });
        }
        if running.is_empty() {
            break;
        }
        advance(model, &mut cache, &mut running, decoding, &mut done)?;
        let mut still = Vec::with_capacity(slots);
        for run in running {
            match finish(&run, text, &stops)? {
                None => still.push(run),
                Some(finish) => {
                    model.clear(&mut cache, run.slot);
                    free.push(run.slot);
                    finished.push((run.request, complete(run, requests, finish, text, &stops)?));
                }
            }
        }
        running = still;
    }
    finished.sort_by_key(|(request, _)| *request);
    done.generations = finished.into_iter().map(|(_, g)| g).collect();
    Ok(done)
}

fn check_ids(requests: &[Request]) -> Result<()> {
    let mut ids: Vec<&str> = requests.iter().map(|r| r.id.as_str()).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|p| p[0] == p[1]) {
        crate::base::error::bail!(
            "duplicate example id `{}`: the id seeds the sample, so it must be unique",
            pair[0]
        );
    }
    Ok(())
}

/// The requests that can be run, and those that cannot.
fn split(requests: &[Request], context: usize) -> (Vec<usize>, Vec<Refused>) {
    let (mut runnable, mut refused) = (Vec::new(), Vec::new());
    for (i, request) in requests.iter().enumerate() {
        let reason = match request.prompt.len() {
            0 => "the prompt has no token".to_owned(),
            n if n >= context => format!("the prompt has {n} tokens and the model's context holds {context}"),
            _ => {
                runnable.push(i);
                continue;
            }
        };
        refused.push(Refused { id: request.id.clone(), reason });
    }
    (runnable, refused)
}

impl Running {
    /// `place` is the request's among all; `limit` bounds prompt and completion together.
    fn new(request: &Request, place: usize, slot: usize, limit: usize, seed: u64) -> Self {
        Self {
            request: place,
            slot,
            ids: request.prompt.clone(),
            prompt_len: request.prompt.len(),
            limit,
            logp: 0.0,
            rng: seed::rng(seed, &format!("generate/{}", request.id)),
            shares: None,
        }
    }

    fn is_new(&self) -> bool {
        self.ids.len() == self.prompt_len
    }
}

/// One forward step, one token for every running sequence.
fn advance<M: Advance>(
    model: &M,
    cache: &mut M::Cache,
    running: &mut [Running],
    decoding: &Decoding,
    done: &mut Generated,
) -> Result<()> {
    let inputs: Vec<(usize, &[u32])> = running
        .iter()
        .filter(|r| r.shares.is_none())
        .map(|r| {
            // A newcomer brings its prompt; the others bring the token drawn last.
            let fresh = if r.is_new() { 0 } else { r.ids.len() - 1 };
            (r.slot, &r.ids[fresh..])
        })
        .collect();
    done.prompt_tokens +=
        running.iter().filter(|r| r.is_new() && r.shares.is_none()).map(|r| r.prompt_len).sum::<usize>();
    let logits = model.step(cache, &inputs)?;
    let (n, _) = logits.dims2().context("logits of a generation step")?; // (n, v)
    ensure!(n == inputs.len(), "the model returned {n} rows of logits for {} sequences", inputs.len());
    let rows = forked(model, cache, running)?;
    let mut choosers: Vec<Chooser<'_>> = running
        .iter_mut()
        .zip(rows)
        .map(|(run, row)| Chooser { row, seen: &run.ids, rng: &mut run.rng })
        .collect();
    let drawn = choose(&logits, &mut choosers, decoding)?;
    for (run, (token, logp)) in running.iter_mut().zip(drawn) {
        run.logp += logp;
        run.ids.push(token);
    }
    done.steps += 1;
    done.new_tokens += running.len();
    Ok(())
}

/// Gives those that share a prompt what it left in the cache; the row of logits that each of `running` reads.
fn forked<M: Advance>(model: &M, cache: &mut M::Cache, running: &mut [Running]) -> Result<Vec<usize>> {
    let (mut rows, mut own) = (Vec::with_capacity(running.len()), 0);
    for i in 0..running.len() {
        let row = match running[i].shares.take() {
            Some(leader) => {
                model.fork(cache, running[leader].slot, running[i].slot)?;
                rows[leader]
            }
            None => {
                own += 1;
                own - 1
            }
        };
        rows.push(row);
    }
    Ok(rows)
}

fn finish(run: &Running, text: Text, stops: &StopStrings) -> Result<Option<Finish>> {
    let completion = &run.ids[run.prompt_len..];
    if completion.last().is_some_and(|t| text.eos.contains(t)) {
        return Ok(Some(Finish::Eos));
    }
    if stops.hit(completion, text.decode)? {
        return Ok(Some(Finish::Stop));
    }
    Ok((run.ids.len() >= run.limit).then_some(Finish::Length))
}

fn complete(
    run: Running,
    requests: &[Request],
    finish: Finish,
    text: Text,
    stops: &StopStrings,
) -> Result<Generation> {
    let request = &requests[run.request];
    let tokens = run.ids[run.prompt_len..].to_vec();
    let spoken = &tokens[..tokens.len() - usize::from(finish == Finish::Eos)];
    let decoded =
        (text.decode)(spoken).with_context(|| format!("decoding the sample of example `{}`", request.id))?;
    Ok(Generation {
        id: request.id.clone(),
        prompt: request.prompt.clone(),
        text: stops.cut(&decoded),
        logp: run.logp,
        tokens,
        finish,
    })
}
