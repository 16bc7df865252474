//! What a method is, and the list of them.

use super::batch::{Batch, StepContext, Terms};
use super::{
    apo, bco, cdpo, cpo, csft, dpo, hinge, ipo, kto, nca, orpo, reward, robust, sft, sigmoid_norm, simpo,
    slic, sppo, unlikelihood,
};
use crate::base::error::{HintExt, Result, anyhow, ensure, unknown};
use crate::plan::{DpoSpec, KtoSpec, Lambda, Method, Z0};

/// The feedback that a method learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Pairs: a prompt with a chosen and a rejected completion.
    Paired,
    /// Single completions labelled desirable or undesirable (pairs give two each).
    Unpaired,
    /// Desirable or chosen completions only.
    Completions,
    /// Prompts; the policy's own samples are labelled as training goes on.
    Prompts,
}

/// A training objective: a pure function of log-probs.
pub trait Objective: Send + Sync {
    /// The method's line in the list.
    fn info(&self) -> &'static MethodInfo;

    /// As in a plan's `method = "…"`.
    fn name(&self) -> &'static str {
        self.info().name
    }

    fn feedback(&self) -> Feedback {
        self.info().feedback
    }

    /// Whether log-probs under the reference are needed.
    fn needs_reference(&self) -> bool {
        self.info().needs_reference
    }

    /// The estimator of z0, where the method has one.
    fn z0(&self) -> Option<Z0> {
        None
    }

    /// Whether the log-prob sums are really scores of whole sequences, from a reward model's head.
    fn reads_scores(&self) -> bool {
        false
    }

    /// Whether the likelihood covers the prompt too.
    fn needs_prompt(&self) -> bool {
        false
    }

    /// Whether Σ log(1 − π(token)) of each completion is needed beside its log-prob.
    fn needs_complement(&self) -> bool {
        false
    }

    /// Loss of an example where policy and reference are equal and known in advance; what the step-0 check
    /// holds the run to. `None`: it depends on the log-probs themselves.
    fn identity_loss(&self, desirable: bool, step: &StepContext) -> Option<f64>;

    /// Losses, this micro-batch's share of the step's loss, and implicit rewards.
    fn terms(&self, batch: &Batch, step: &StepContext) -> Result<Terms>;
}

/// A line of `kto-eval methods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// As in a plan's `method = "…"`.
    pub name: &'static str,
    pub title: &'static str,
    pub feedback: Feedback,
    pub needs_reference: bool,
    /// arXiv identifier.
    pub paper: &'static str,
}

const METHODS: &[MethodInfo] = &[
    sft::INFO,
    kto::INFO,
    dpo::INFO,
    ipo::INFO,
    cdpo::INFO,
    robust::INFO,
    hinge::INFO,
    simpo::INFO,
    orpo::INFO,
    cpo::INFO,
    slic::INFO,
    apo::ZERO,
    apo::DOWN,
    sigmoid_norm::INFO,
    sppo::INFO,
    nca::INFO,
    bco::INFO,
    csft::INFO,
    unlikelihood::INFO,
    reward::INFO,
    MethodInfo {
        name: "rloo",
        title: "REINFORCE, leave-one-out baseline, on own samples",
        feedback: Feedback::Prompts,
        needs_reference: true,
        paper: "2402.14740",
    },
    MethodInfo {
        name: "grpo",
        title: "group-relative policy optimization on own samples",
        feedback: Feedback::Prompts,
        needs_reference: true,
        paper: "2402.03300",
    },
    MethodInfo {
        name: "ppo",
        title: "proximal policy optimization with a critic on own samples",
        feedback: Feedback::Prompts,
        needs_reference: true,
        paper: "1707.06347",
    },
    MethodInfo {
        name: "ppo-offline",
        title: "PPO on given completions, rewarded ±1 by label",
        feedback: Feedback::Unpaired,
        needs_reference: true,
        paper: "2402.01306",
    },
    MethodInfo {
        name: "online-dpo",
        title: "DPO on the best and worst of own samples",
        feedback: Feedback::Prompts,
        needs_reference: true,
        paper: "2402.04792",
    },
    MethodInfo {
        name: "online-kto",
        title: "KTO on own samples, above or below their prompt's mean",
        feedback: Feedback::Prompts,
        needs_reference: true,
        paper: "2402.01306",
    },
];

/// Every method, in the order in which they are listed to people.
pub fn methods() -> &'static [MethodInfo] {
    METHODS
}

/// The line of a method named in a plan.
///
/// # Errors
/// An unknown name; the known ones are listed.
pub fn info(name: &str) -> Result<&'static MethodInfo> {
    METHODS.iter().find(|m| m.name == name).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
        unknown("method", name, &known)
    })
}

/// The objective of a plan's method, its hyperparameters checked.
///
/// # Errors
/// A hyperparameter outside its range; the message names it and the range.
pub fn build(method: &Method) -> Result<Box<dyn Objective>> {
    Ok(match method {
        Method::Sft => Box::new(sft::Sft),
        Method::Dpo(s) => Box::new(dpo::Dpo::new(s)?),
        Method::Kto(s) => Box::new(kto::Kto::new(s)?),
        Method::Ipo(s) => Box::new(ipo::Ipo::new(s)?),
        Method::Cdpo(s) => Box::new(cdpo::Cdpo::new(s)?),
        Method::RobustDpo(s) => Box::new(robust::Robust::new(s)?),
        Method::Hinge(s) => Box::new(hinge::Hinge::new(s)?),
        Method::Simpo(s) => Box::new(simpo::Simpo::new(s)?),
        Method::Orpo(s) => Box::new(orpo::Orpo::new(s)?),
        Method::Cpo(s) => Box::new(cpo::Cpo::new(s)?),
        Method::Slic(s) => Box::new(slic::Slic::new(s)?),
        Method::ApoZero(s) => Box::new(apo::ApoZero::new(s)?),
        Method::ApoDown(s) => Box::new(apo::ApoDown::new(s)?),
        Method::SigmoidNorm(s) => Box::new(sigmoid_norm::SigmoidNorm::new(s)?),
        Method::SppoHard(s) => Box::new(sppo::SppoHard::new(s)?),
        Method::Nca(s) => Box::new(nca::Nca::new(s)?),
        Method::Bco(s) => Box::new(bco::Bco::new(s)?),
        Method::Csft(s) => Box::new(csft::Csft::new(s)?),
        Method::Unlikelihood(s) => Box::new(unlikelihood::Unlikelihood::new(s)?),
        Method::External => return Err(anyhow!("an external trainer has an objective of its own")),
        Method::Reward => Box::new(reward::Reward),
        // What labelled samples are learned from with.
        Method::OnlineDpo(s) => Box::new(dpo::Dpo::new(&DpoSpec { beta: s.beta })?),
        Method::OnlineKto(s) => {
            Box::new(kto::Kto::new(&KtoSpec { beta: s.beta, lambda: Lambda::Auto, z0: Z0::Next })?)
        }
        Method::Rloo(_) | Method::Grpo(_) | Method::Ppo(_) | Method::PpoOffline(_) => {
            return Err(anyhow!(
                "{} reads single tokens, not log-prob sums: see objective::online",
                method.name()
            ));
        }
    })
}

/// β > 0 and finite.
pub(super) fn positive(method: &str, what: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(anyhow!("{method}: `{what}` is {value}; it must be a finite number above 0"))
        .hint(format!("set `{what}` to a positive number, such as 0.1"))
}

/// A weight: ≥ 0 and finite.
pub(super) fn weight(method: &str, what: &str, value: f64) -> Result<f64> {
    ensure!(
        value.is_finite() && value >= 0.0,
        "{method}: `{what}` is {value}; it must be a finite number, 0 or above"
    );
    Ok(value)
}

/// A flip probability: in [0, 0.5).
pub(super) fn smoothing(method: &str, value: f64) -> Result<f64> {
    ensure!((0.0..0.5).contains(&value), "{method}: `label_smoothing` is {value}; it must lie in [0, 0.5)");
    Ok(value)
}
