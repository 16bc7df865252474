//! What types cannot say: ranges, and settings that contradict each other.

use super::defaults::JUDGE_KEY;
use super::range::Range;
use super::source::Source;
use super::sweep::check_against;
use super::tuning::check_tune;
use super::types::*;
use crate::base::error::{HintExt, Result, anyhow};

/// Checks a plan that is typed already; `source` says where each value stands.
///
/// # Errors
/// The first value that is out of range, with its place, its range and, where there is one, a remedy.
pub(super) fn check(plan: &Plan, source: &Source) -> Result<()> {
    check_names(plan, source)?;
    check_seeds(plan, source)?;
    check_sources(plan, source)?;
    let number = |path: &str, x: f64, range: Range| within(source, path, x, range);
    number("verdict.resamples", plan.verdict.resamples as f64, Range::Positive)?;
    number("verdict.alpha", plan.verdict.alpha, Range::Open)?;
    number("verdict.equivalence_margin", plan.verdict.equivalence_margin, Range::Positive)?;
    number("data.heldout_fraction", plan.data.heldout_fraction, Range::Share)?;
    check_judge(&plan.judge, source)?;
    check_data(&plan.data, "", source)?;
    super::slurm::check(&plan.slurm, source)?;
    number("prices.device_hour", plan.prices.device_hour, Range::NonNegative)?;
    for arm in &plan.arms {
        check_train(arm, source)?;
        check_quantize(plan, arm, source)?;
        if let Some(trainer) = &arm.trainer {
            check_trainer(arm, trainer, plan.seeds[0], source)?;
        }
        check_feedback(arm, source)?;
        check_data(&arm.data, &format!("arm.{}.", arm.template()), source)?;
    }
    if let Some(tune) = &plan.tune {
        number("tune.validation", tune.validation, Range::Open)?;
        number("tune.budget_share", tune.budget_share, Range::Part)?;
    }
    check_against(plan, source)?;
    check_tune(plan, source)
}

fn check_trainer(arm: &Arm, trainer: &TrainerSpec, seed: u64, source: &Source) -> Result<()> {
    let path = |key: &str| format!("arm.{}.trainer.{key}", arm.template());
    within(source, &path("timeout_seconds"), trainer.timeout_seconds, Range::Positive)?;
    within(source, &path("log_mib"), trainer.log_mib, Range::NonNegative)?;
    let command = path("command");
    if trainer.command.first().is_none_or(|program| program.trim().is_empty()) {
        return Err(source.error(&command, "is empty; it names the program and its arguments")).hint(
            "such as command = [\"python\", \"train.py\", \"--data\", \"{data}\", \"--out\", \"{out}\"]",
        );
    }
    let known = super::trainer::values(arm, seed);
    for word in &trainer.command {
        super::trainer::fill(word, &known).map_err(|e| source.error(&command, e))?;
    }
    if !trainer.command.iter().any(|w| w.contains("{out}")) {
        return Err(source.error(&command, "has no {out}: the model that it leaves could not be found"))
            .hint("pass the folder for the trained model to it, such as \"--out\", \"{out}\"");
    }
    if arm.sft_first > 0.0 {
        let path = format!("arm.{}.sft_first", arm.template());
        let message = format!("is {}; this arm is a command, and SFT first is this engine's", arm.sft_first);
        return Err(source.error(&path, message))
            .hint("leave it out, and have the command train in two stages");
    }
    Ok(())
}

/// What an arm does to its labels, and to its start.
fn check_feedback(arm: &Arm, source: &Source) -> Result<()> {
    let place = |key: &str| {
        let own = format!("arm.{}.{key}", arm.template());
        if source.says(&own) { own } else { key.to_owned() }
    };
    let feedback = &arm.data.feedback;
    for (key, x, range) in [
        ("data.feedback.fraction", feedback.fraction, Range::Part),
        ("data.feedback.flip", feedback.flip, Range::Flip),
        ("data.feedback.imbalance", feedback.imbalance, Range::NonNegative),
        ("sft_first", arm.sft_first, Range::Share),
    ] {
        within(source, &place(key), x, range)?;
    }
    let method = arm.method.name();
    for (key, unpairs) in [
        ("data.feedback.one_completion", feedback.one_completion),
        ("data.feedback.imbalance", feedback.imbalance > 0.0),
    ] {
        if unpairs && arm.method.keys().unit == 2 {
            let message =
                format!("leaves single completions, and arm `{}` ({method}) learns from pairs", arm.name);
            return Err(source.error(&place(key), message))
                .hint("give it to the arms that it suits alone: `[arm.data.feedback]` below their [[arm]]");
        }
    }
    if arm.sft_first > 0.0 && arm.method == Method::Sft {
        return Err(source.error(&place("sft_first"), "is SFT before SFT; leave it out of this arm"));
    }
    Ok(())
}

/// The source that is generated instead of read.
pub const WORLD: &str = "world";

/// The run that stands for the starting checkpoint in `scores.csv`; no arm may take the name.
pub const BASE_ARM: &str = "base";

fn within(source: &Source, path: &str, x: f64, range: Range) -> Result<()> {
    if range.holds(x) { Ok(()) } else { Err(source.error(path, range.complaint(x))) }
}

fn check_names(plan: &Plan, source: &Source) -> Result<()> {
    if plan.name.trim().is_empty() {
        return Err(source.error("name", "is empty"));
    }
    for (i, arm) in plan.arms.iter().enumerate() {
        let path = format!("arm.{}.name", arm.template());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let swept = |c: char| plain(c) || (arm.point.is_some() && "@=.+".contains(c));
        if arm.name.is_empty() || !arm.name.chars().all(swept) {
            let message = format!("is `{}`; an arm's name is made of letters, digits, `-` and `_`", arm.name);
            return Err(source.error(&path, message));
        }
        if arm.name == BASE_ARM {
            return Err(source.error(&path, "is taken: `base` is the starting checkpoint in the records"));
        }
        if arm.name.starts_with("sentinel-") {
            return Err(source
                .error(&path, "begins with `sentinel-`, which contestants that ought to lose are called"));
        }
        if plan.arms[..i].iter().any(|other| other.name == arm.name) {
            return Err(anyhow!("{}: two arms are named `{}`", source.at(&path), arm.name))
                .hint("give each [[arm]] a `name` of its own");
        }
    }
    Ok(())
}

fn check_seeds(plan: &Plan, source: &Source) -> Result<()> {
    if plan.seeds.is_empty() {
        return Err(source.error("seeds", "is empty; it must hold at least one seed"));
    }
    for (i, seed) in plan.seeds.iter().enumerate() {
        if plan.seeds[..i].contains(seed) {
            return Err(source.error("seeds", format!("holds {seed} twice; a seed counts once")));
        }
    }
    Ok(())
}

fn check_sources(plan: &Plan, source: &Source) -> Result<()> {
    for (path, given, option, example) in [
        ("model.source", &plan.model.source, "--model", "EleutherAI/pythia-70m"),
        ("data.source", &plan.data.source, "--data", "Anthropic/hh-rlhf"),
    ] {
        if given.is_empty() {
            return Err(anyhow!("{}: no `{path}`", source.at(path))).hint(format!(
                "name a hub id (`{example}`), a path, or `world`, in the plan or by {option}"
            ));
        }
    }
    if let Some(arm) = plan.arms.iter().find(|a| plan.model.source == WORLD && a.data.source != WORLD) {
        let own = format!("arm.{}.data.source", arm.template());
        let place = if source.says(&own) { own.as_str() } else { "data.source" };
        return Err(source.error(
            place,
            "is not `world`, and model.source is: its model knows only the world's own vocabulary",
        ))
        .hint("set data.source = \"world\" too, or name a model by hub id or path");
    }
    Ok(())
}

/// `arm`: what stands before the keys where an arm has its own.
fn check_data(data: &DataSpec, arm: &str, source: &Source) -> Result<()> {
    if data.max_length < 2 {
        let own = format!("{arm}data.max_length");
        let place = if source.says(&own) { own.as_str() } else { "data.max_length" };
        let message =
            format!("is {}; it must be at least 2: a token of prompt and one of completion", data.max_length);
        return Err(source.error(place, message));
    }
    check_world(data, arm, source)
}

fn check_world(data: &DataSpec, arm: &str, source: &Source) -> Result<()> {
    if data.source != WORLD {
        return Ok(());
    }
    let world = &data.world;
    for (key, x, range) in [
        ("temperature", world.temperature, Range::Positive),
        ("flip", world.flip, Range::Flip),
        ("train_pairs", world.train_pairs as f64, Range::Positive),
        ("heldout_pairs", world.heldout_pairs as f64, Range::Positive),
    ] {
        let (own, shared) = (format!("{arm}data.world.{key}"), format!("data.world.{key}"));
        within(source, if source.says(&own) { &own } else { &shared }, x, range)?;
    }
    if data.split != "train" {
        let own = format!("{arm}data.split");
        let place = if source.says(&own) { own.as_str() } else { "data.split" };
        let message =
            format!("is `{}`; the world's other split, `test`, is what its suites ask about", data.split);
        return Err(source.error(place, message)).hint("leave it out: it is `train`");
    }
    Ok(())
}

fn check_lora(lora: &LoraSpec, arm: &Arm, source: &Source, place: &dyn Fn(&str) -> String) -> Result<()> {
    if !lora.is_on() {
        // Adapter keys without an adapter (rank 0) can only be a mistake.
        let own = format!("arm.{}.lora", arm.template());
        let path = if source.says(&own) { own.as_str() } else { "train.lora" };
        let ranked = [own.as_str(), "train.lora"].iter().any(|p| source.says(&format!("{p}.rank")));
        if source.says(path) && !ranked {
            return Err(source.error(path, "has no `rank`; rank 0, the default, means no adapter"))
                .hint("name a rank, such as lora = { rank = 16 }");
        }
        return Ok(());
    }
    if arm.method == Method::Reward {
        return Err(source.error(&place("lora"), "is an adapter, and a reward model trains all weights"))
            .hint("leave `lora` out");
    }
    within(source, &place("lora.alpha"), lora.alpha, Range::Positive)?;
    within(source, &place("lora.dropout"), lora.dropout, Range::Share)?;
    if lora.target_modules.is_empty() || lora.target_modules.iter().any(String::is_empty) {
        let message = "must name modules, such as [\"q_proj\", \"v_proj\"], or [\"all-linear\"]";
        return Err(source.error(&place("lora.target_modules"), message));
    }
    Ok(())
}

/// A quantised base is frozen: what an arm trains on it must be an adapter.
fn check_quantize(plan: &Plan, arm: &Arm, source: &Source) -> Result<()> {
    if !plan.model.quantize.is_on() {
        return Ok(());
    }
    let path = format!("arm.{}", arm.template());
    let frozen = format!("model.quantize = \"{}\" freezes the base", plan.model.quantize.name());
    let (why, remedy) = if arm.trainer.is_some() {
        ("is an external trainer, which reads the checkpoint as it is", "leave `quantize` out of [model]")
    } else if arm.method == Method::Reward {
        ("trains all weights: its method takes no adapter", "leave `quantize` out of [model]")
    } else if arm.method.rollouts().is_some() {
        ("cannot be trained on a quantised base yet", "leave `quantize` out of [model]")
    } else if !arm.train.lora.is_on() {
        ("trains all weights", "give it an adapter: lora = { rank = 16 }")
    } else {
        return Ok(());
    };
    Err(source.error(&path, format!("{why}, and {frozen}"))).hint(remedy)
}

fn check_judge(judge: &JudgeSpec, source: &Source) -> Result<()> {
    for (path, x, range) in [
        ("judge.concurrency", judge.concurrency as f64, Range::Positive),
        ("judge.timeout", judge.timeout, Range::Positive),
        ("judge.prompt_price", judge.prompt_price, Range::NonNegative),
        ("judge.reply_price", judge.reply_price, Range::NonNegative),
    ] {
        within(source, path, x, range)?;
    }
    if judge.url.is_empty() != judge.model.is_empty() {
        let missing = if judge.url.is_empty() { "judge.url" } else { "judge.model" };
        return Err(source.error(missing, "is empty; a judge has a url and a model"))
            .hint("give both --judge-url and --judge-model, or judge.url and judge.model in the plan");
    }
    let rest = judge.url.strip_prefix("http://").or_else(|| judge.url.strip_prefix("https://"));
    if rest.is_none() && !judge.url.is_empty() {
        return Err(
            source.error("judge.url", format!("is `{}`; it must begin with http:// or https://", judge.url))
        );
    }
    // A password in the address would be written with the plan.
    if rest.and_then(|r| r.split('/').next()).is_some_and(|host| host.contains('@')) {
        // Not `source.error`: that would show the option, password and all.
        return Err(anyhow!("judge.url holds a user or a password, and plans are written to disk"))
            .hint(format!("put the key into the environment variable {JUDGE_KEY}"));
    }
    Ok(())
}

/// # Errors
/// See [`check_keys`]; keys that contradict each other.
pub(super) fn check_train(arm: &Arm, source: &Source) -> Result<()> {
    check_keys(arm, source)?;
    check_together(arm, source)
}

/// A value that the arm does not give itself stands in [train].
fn train_place(arm: &Arm, source: &Source, key: &str) -> String {
    let own = format!("arm.{}.{key}", arm.template());
    if source.says(&own) { own } else { format!("train.{key}") }
}

/// # Errors
/// A key of the arm's training that is out of its range, whatever the others are.
pub(super) fn check_keys(arm: &Arm, source: &Source) -> Result<()> {
    let train = &arm.train;
    let place = |key: &str| train_place(arm, source, key);
    for (key, x, range) in [
        ("batch_size", train.batch_size as f64, Range::Positive),
        ("micro_tokens", train.micro_tokens as f64, Range::Positive),
        ("learning_rate", train.learning_rate, Range::Positive),
        ("warmup", train.warmup, Range::Share),
        ("adam_beta1", train.adam_beta1, Range::Share),
        ("adam_beta2", train.adam_beta2, Range::Share),
        ("adam_epsilon", train.adam_epsilon, Range::Positive),
        ("weight_decay", train.weight_decay, Range::NonNegative),
        ("max_grad_norm", train.max_grad_norm, Range::NonNegative),
    ] {
        within(source, &place(key), x, range)?;
    }
    check_lora(&train.lora, arm, source, &place)?;
    let (size, unit) = (train.batch_size, arm.method.keys().unit);
    if size % unit != 0 {
        let message = format!("is {size}; {} learns from pairs, so it must be even", arm.method.name());
        return Err(source.error(&place("batch_size"), message))
            .hint("batch_size counts completions: a pair counts two");
    }
    Ok(())
}

fn check_together(arm: &Arm, source: &Source) -> Result<()> {
    let place = |key: &str| train_place(arm, source, key);
    if let Method::Csft(control) = &arm.method
        && control.desirable_token == control.undesirable_token
    {
        let message = format!("is \"{}\", and so is `undesirable_token`", control.desirable_token);
        return Err(source.error(&place("desirable_token"), message))
            .hint("the two must differ: they tell the classes apart");
    }
    let (size, batch) = (arm.train.batch_size, place("batch_size"));
    if let Some(online) = arm.method.online()
        && size % online.samples != 0
    {
        let message = format!(
            "is {size}; {} draws {} samples a prompt, so it must be a multiple of that",
            arm.method.name(),
            online.samples
        );
        return Err(source.error(&batch, message))
            .hint("batch_size counts samples: whole prompts make a step");
    }
    if let Method::Kto(kto) = &arm.method
        && kto.z0 != Z0::Zero
        && size < 2
    {
        let message = "is 1; kto's reference point pairs each prompt with another example's completion, so it \
                       must be at least 2";
        return Err(source.error(&batch, message))
            .hint("or set z0 = \"zero\" for this arm: no reference point");
    }
    Ok(())
}
