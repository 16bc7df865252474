//! What a plan leaves out. `kto-eval plan show` prints a plan with all of these written out.

use super::types::*;

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            source: String::new(),
            revision: "main".into(),
            reference: String::new(),
            reference_revision: "main".into(),
            dtype: Dtype::F32,
            quantize: Quantize::None,
        }
    }
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            source: String::new(),
            revision: "main".into(),
            config: String::new(),
            split: "train".into(),
            format: DataFormat::Auto,
            max_length: 512,
            max_examples: 0,
            heldout_split: "test".into(),
            heldout_fraction: 0.1,
            feedback: FeedbackSpec::default(),
            world: WorldSpec::default(),
        }
    }
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self { seed: 0, train_pairs: 4000, heldout_pairs: 500, temperature: 0.2, flip: 0.05 }
    }
}

impl Default for TrainSpec {
    /// Adam's constants and clipping as in TRL and HALOs; the batch of 32 and rate of 5e-6 are HALOs'.
    fn default() -> Self {
        Self {
            batch_size: 32,
            micro_tokens: 448,
            gradient_checkpointing: false,
            order: Order::Shuffled,
            learning_rate: 5e-6,
            schedule: Schedule::Linear,
            warmup: 0.1,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            lora: LoraSpec::default(),
        }
    }
}

impl Default for LoraSpec {
    /// Off. The rest is TRL's (alpha 32) and PEFT's for QLoRA (every projection).
    fn default() -> Self {
        Self {
            rank: 0,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: vec![ALL_LINEAR.into()],
            use_rslora: false,
        }
    }
}

impl Default for TrainerSpec {
    fn default() -> Self {
        Self {
            command: vec![],
            data: TrainerData::TrlJsonl,
            timeout_seconds: 3600.0,
            log_mib: 16.0,
            keep_model: false,
        }
    }
}

impl SuitesSpec {
    /// What is measured where a plan has no `[suites]`: the held-out split of its own data.
    pub fn default_for(data: &DataSpec) -> Self {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        match data.source.as_str() {
            "world" => Self { preference: names(&["world"]), generation: names(&["world"]), max_examples: 0 },
            _ => Self { preference: names(&["heldout"]), generation: vec![], max_examples: 0 },
        }
    }
}

/// Where the judge's key is looked for.
pub const JUDGE_KEY: &str = "KTO_EVAL_JUDGE_KEY";

impl Default for JudgeSpec {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            template: "pairwise".into(),
            reward_model: String::new(),
            key: JUDGE_KEY.into(),
            concurrency: 8,
            timeout: 120.0,
            retries: 6,
            prompt_price: 0.0,
            reply_price: 0.0,
        }
    }
}

/// What a comparison is about where its plan does not say: those of them that its suites measure.
const PRIMARY: [&str; 5] = ["reward_accuracy", "label_auc", "win_rate_base", "exact_match", "prompt_strict"];

/// The same as earlier versions wrote it out: before there was a measure of labels, and with a name that no metric has.
const PRIMARY_BEFORE: [&[&str]; 2] = [
    &["reward_accuracy", "win_rate_base", "exact_match", "prompt_strict"],
    &["reward_accuracy", "win_rate_base", "win_rate", "exact_match", "prompt_strict"],
];

impl VerdictSpec {
    /// With an earlier version's default as it is now: a folder of that version is gone on with.
    pub fn renewed(&self) -> Self {
        match PRIMARY_BEFORE.iter().any(|before| self.primary == *before) {
            true => Self { primary: Self::default().primary, ..self.clone() },
            false => self.clone(),
        }
    }
}

impl Default for VerdictSpec {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            primary: PRIMARY.map(str::to_owned).into(),
            equivalence_margin: 0.02,
            resamples: 10_000,
            seed: 0,
        }
    }
}

impl Default for FeedbackSpec {
    /// All labels, as they are.
    fn default() -> Self {
        Self { fraction: 1.0, flip: 0.0, one_completion: false, imbalance: 0.0, seed: 0 }
    }
}

impl Default for TuneSpec {
    fn default() -> Self {
        Self {
            trials: 8,
            search: Search::Random,
            seed: 0,
            validation: 0.1,
            suite: "heldout".into(),
            metric: "reward_accuracy".into(),
            budget_share: 1.0,
        }
    }
}

impl Default for PricesSpec {
    fn default() -> Self {
        Self { device_hour: 0.0, currency: "USD".into() }
    }
}
