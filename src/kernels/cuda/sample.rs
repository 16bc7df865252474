//! Drawing tokens where their logits lie: what comes back is a token and its log-prob a sequence.

use candle_core::{DType, Tensor};

use super::gpu::{Gpu, Kernel, Source, args, int};
use crate::base::error::{Result, ensure};

pub static SOURCE: Source = Source { name: "sample", parts: &[include_str!("sample.cu")] };

const THREADS: usize = 1024;
/// In a token's place: the row holds a NaN; nothing in it is finite.
const BROKEN: u32 = u32::MAX;
const EMPTY: u32 = u32::MAX - 1;

/// How tokens are drawn, as in `model::generate::Decoding`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub temperature: f64,
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
}

/// A sequence that wants a token.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of the logits.
    pub row: usize,
    /// Tokens so far, for the penalty.
    pub seen: &'a [u32],
    /// Uniform in [0, 1), a multiple of 2⁻⁵³; not looked at by a temperature of 0.
    pub u: f64,
}

/// What a sequence gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drawn {
    /// A token, and its log-prob under the model as it is.
    Token(u32, f64),
    /// The first NaN's place.
    Nan(usize),
    /// No logit is finite.
    Nothing,
}

fn kernel(function: &'static str) -> Kernel {
    Kernel::new(&SOURCE, function, false)
}

pub(super) fn variants() -> [Kernel; 2] {
    ["sample_penalise", "sample_draw"].map(kernel)
}

/// logits (m, v, f32) → what each of the sequences draws.
///
/// # Errors
/// A failing kernel.
pub fn draw(gpu: &dyn Gpu, logits: &Tensor, asked: &[Asked<'_>], rule: &Rule) -> Result<Vec<Drawn>> {
    let (m, v) = logits.dims2()?;
    ensure!(logits.dtype() == DType::F32 && v > 0, "drawing from {:?} {:?}", logits.dtype(), logits.shape());
    ensure!(asked.iter().all(|a| a.row < m), "drawing from more than the {m} rows of logits");
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let given: Vec<i64> = asked.iter().flat_map(|a| [a.row as i64, (a.u * 2f64.powi(53)) as i64]).collect();
    let given = Tensor::from_vec(given, (asked.len(), 2), gpu.device())?;
    let penalised = match rule.repetition_penalty {
        1.0 => None,
        penalty => Some(penalised(gpu, logits, asked, &given, penalty)?),
    };
    let out = gpu.empty((asked.len(), 2).into(), DType::U32)?;
    let factor = if rule.temperature > 0.0 { (1.0 / rule.temperature) as f32 } else { 0.0 };
    let k = if rule.top_k < v { rule.top_k } else { 0 };
    let given =
        args![logits, penalised.as_ref(), &given, &out, int(v)?, factor, int(k)?, rule.top_p, rule.min_p];
    gpu.launch(&kernel("sample_draw"), (asked.len(), 1), THREADS, &given)?;
    let drawn = |pair: Vec<u32>| match pair[0] {
        BROKEN => Drawn::Nan(pair[1] as usize),
        EMPTY => Drawn::Nothing,
        token => Drawn::Token(token, f64::from(f32::from_bits(pair[1]))),
    };
    Ok(out.to_vec2::<u32>()?.into_iter().map(drawn).collect())
}

/// (n, v) the rows asked for, seen tokens penalised.
fn penalised(
    gpu: &dyn Gpu,
    logits: &Tensor,
    asked: &[Asked<'_>],
    given: &Tensor,
    penalty: f64,
) -> Result<Tensor> {
    let v = logits.dim(1)?;
    let mut starts = vec![0u32];
    let mut seen: Vec<u32> = Vec::new();
    for sequence in asked {
        seen.extend(sequence.seen);
        starts.push(u32::try_from(seen.len())?);
    }
    let (starts, seen) = (gpu.upload(&starts)?, gpu.upload(&seen)?);
    let out = gpu.empty((asked.len(), v).into(), DType::F32)?;
    let given = args![logits, given, &starts, &seen, &out, int(v)?, penalty as f32];
    gpu.launch(&kernel("sample_penalise"), (asked.len(), 1), THREADS, &given)?;
    Ok(out)
}
