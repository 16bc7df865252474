//! A reward model on a data set: scores, accuracy, calibration.

use candle_core::{DType, Device};
use serde::Serialize;

use super::observer::Observer;
use super::training_set::{TrainingSet, read_training_set};
use crate::base::error::{HintExt, Result, anyhow};
use crate::data::{TokenizedPair, Tokenizer, resolve_model};
use crate::model::RewardModel;
use crate::plan::DataSpec;
use crate::suite::calibration::{brier, expected_calibration_error};
use crate::train::online::heldout_margins;

/// How well a reward model ranks pairs that it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RewardQuality {
    pub pairs: usize,
    /// Share of pairs whose chosen completion has the higher score; ties count one half.
    pub accuracy: f64,
    pub accuracy_standard_error: f64,
    /// Mean of −log σ(margin), nats: what training lowers.
    pub loss: f64,
    /// Of σ(margin) as the probability of the label.
    pub brier: f64,
    pub expected_calibration_error: f64,
    /// Mean score of chosen minus rejected.
    pub margin: f64,
}

/// From (p,) margins.
///
/// # Errors
/// No pair.
pub fn reward_quality(margins: &[f64]) -> Result<RewardQuality> {
    if margins.is_empty() {
        return Err(anyhow!("no pair to measure a reward model on"));
    }
    let n = margins.len() as f64;
    let mean = |f: &dyn Fn(f64) -> f64| margins.iter().map(|m| f(*m)).sum::<f64>() / n;
    let right = |m: f64| 0.5 * (f64::from(m > 0.0) + f64::from(m >= 0.0));
    let accuracy = mean(&right);
    let variance = mean(&|m| (right(m) - accuracy).powi(2)) * n / (n - 1.0).max(1.0);
    Ok(RewardQuality {
        pairs: margins.len(),
        accuracy,
        accuracy_standard_error: (variance / n).sqrt(),
        // log(1 + e^−m), which neither overflows nor rounds to 0.
        loss: mean(&|m| (-m).max(0.0) + (-m.abs()).exp().ln_1p()),
        brier: mean(&brier),
        expected_calibration_error: expected_calibration_error(&mut margins.iter().copied()),
        margin: mean(&|m| m),
    })
}

/// Quality on a split of pairs, with the pairs and their margins.
///
/// # Errors
/// A model or data that cannot be read, data without pairs.
pub fn measure_reward_model(
    model: &str,
    data: &DataSpec,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<(Vec<TokenizedPair>, Vec<f64>, RewardQuality)> {
    let dir = resolve_model(model, "main")?;
    let tokenizer = Tokenizer::load(&dir)?;
    let model = RewardModel::load(&dir, DType::F32, device)?;
    tokenizer.check_fits(model.decoder().config().vocab)?;
    let set = read_training_set(data, &tokenizer, observer)?;
    let (pairs, margins) = margins(&model, set, data)?;
    let quality = reward_quality(&margins)?;
    Ok((pairs, margins, quality))
}

pub(super) fn margins(
    model: &RewardModel,
    set: TrainingSet,
    data: &DataSpec,
) -> Result<(Vec<TokenizedPair>, Vec<f64>)> {
    let TrainingSet::Paired(pairs) = set else {
        return Err(anyhow!("{} holds single completions", data.source))
            .hint("a reward model is measured on pairs");
    };
    let margins = heldout_margins(model, &pairs)?;
    Ok((pairs, margins))
}

impl std::fmt::Display for RewardQuality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "reward model on {} pairs: accuracy {:.3} ± {:.3}, loss {:.4}, Brier score {:.4}, calibration error \
             {:.4}, mean margin {:.3}",
            self.pairs,
            self.accuracy,
            self.accuracy_standard_error,
            self.loss,
            self.brier,
            self.expected_calibration_error,
            self.margin
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_is_what_the_formulas_say() {
        // By hand: right, wrong, tie.
        let q = reward_quality(&[2.0, -1.0, 0.0]).unwrap();
        assert_eq!((q.pairs, q.accuracy), (3, 0.5));
        let loss = ((-2f64).exp().ln_1p() + 1f64.exp().ln_1p() + 2f64.ln()) / 3.0;
        assert!((q.loss - loss).abs() < 1e-15, "{}", q.loss);
        assert!((q.margin - 1.0 / 3.0).abs() < 1e-15);
        assert!((q.accuracy_standard_error - (0.25f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!(reward_quality(&[]).is_err());
        assert!(reward_quality(&[-1e4, 1e4]).unwrap().loss.is_finite());
    }
}
