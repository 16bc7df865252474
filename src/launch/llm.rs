//! The language model that judges: made from the plan, and what it cost.

use std::time::Duration;

use crate::base::cache;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::{JUDGE_KEY, JudgeSpec};
use crate::record::JudgeUsage;
use crate::suite::judge::llm::{Endpoint, JudgeTemplate, LlmJudge, Tally};
use crate::suite::{JudgeKind, NO_JUDGE, Suite};

/// Wait before the first retry; doubles with each.
const BACKOFF: Duration = Duration::from_millis(500);

/// The judge that the suites need; `None` where none of them does. Nothing is asked yet.
///
/// # Errors
/// A suite needs it and the plan names none; a template that cannot be read.
pub(super) fn judge_for(suites: &[Suite], spec: &JudgeSpec) -> Result<Option<LlmJudge>> {
    let Some(suite) = suites.iter().find(|s| s.judge == JudgeKind::Llm) else { return Ok(None) };
    if spec.url.is_empty() {
        return Err(anyhow!("suite `{}` is judged by a language model, and none is named", suite.name))
            .hint(NO_JUDGE);
    }
    let template = match spec.template.as_str() {
        "pairwise" => JudgeTemplate::pairwise()?,
        path => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("judge.template: reading {path}"))
                .hint("`pairwise`, or the path of a file like suites/judges/pairwise.toml")?;
            JudgeTemplate::parse(&text, path)?
        }
    };
    // The default variable may be unset, a variable that the plan names may not.
    let keyless = spec.key == JUDGE_KEY && std::env::var_os(JUDGE_KEY).is_none();
    let endpoint = Endpoint {
        url: spec.url.clone(),
        model: spec.model.clone(),
        key_variable: if keyless { String::new() } else { spec.key.clone() },
        timeout: Duration::from_secs_f64(spec.timeout.min(86_400.0)),
        retries: spec.retries,
        backoff: BACKOFF,
        concurrency: spec.concurrency,
    };
    let folder = cache::user_folder().unwrap_or_else(std::env::temp_dir).join("judge");
    LlmJudge::new(endpoint, template, &folder).map(Some).hint(cache::ELSEWHERE)
}

/// What the judge has cost since `before`.
pub(super) fn usage(spec: &JudgeSpec, before: &Tally, now: &Tally) -> JudgeUsage {
    let since = |of: fn(&Tally) -> u64| of(now) - of(before);
    let (prompt_tokens, reply_tokens) =
        (since(|t| t.usage.prompt_tokens), since(|t| t.usage.completion_tokens));
    JudgeUsage {
        url: spec.url.clone(),
        model: spec.model.clone(),
        template: spec.template.clone(),
        matches: since(|t| t.matches),
        invalid: since(|t| t.invalid),
        flipped: since(|t| t.flipped),
        asked: since(|t| t.usage.asked),
        cached: since(|t| t.usage.cached),
        repeated: since(|t| t.usage.repeated),
        refused: since(|t| t.refused),
        cut: since(|t| t.cut),
        prompt_tokens,
        reply_tokens,
        cost: (prompt_tokens as f64 * spec.prompt_price + reply_tokens as f64 * spec.reply_price) / 1e6,
    }
}
