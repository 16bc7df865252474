//! A resolved plan as TOML that parses to the same plan.

use std::fmt::Write;

use serde::Serialize;

use super::types::*;
use crate::base::hash::Hasher;

impl Plan {
    /// The plan with every default written out; [`Plan::parse`] gives the same plan again.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let value = |v: toml::Value| v.to_string();
        let _ = writeln!(out, "name = {}", value(self.name.as_str().into()));
        out.push_str(&multiline("analysis", &self.analysis));
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "seeds = [{}]", seeds.join(", "));
        section(&mut out, "[budget]", &self.budget);
        section(&mut out, "[model]", &self.model);
        section(&mut out, "[data]", &Within { data: &self.data });
        section(&mut out, "[suites]", &self.suites);
        if self.judge != JudgeSpec::default() {
            section(&mut out, "[judge]", &self.judge);
        }
        section(&mut out, "[verdict]", &self.verdict);
        for arm in &self.arms {
            let _ = writeln!(out, "\n[[arm]]\nname = {}", value(arm.name.as_str().into()));
            let _ = writeln!(out, "method = {}", value(arm.method.name().into()));
            for (key, hyperparameter) in arm.method.values() {
                let _ = writeln!(out, "{key} = {}", value(hyperparameter));
            }
            out.push_str(&flat(&arm.train));
            if let Some(trainer) = &arm.trainer {
                out.push_str(&format!("\n[arm.trainer]\n{}", table(trainer)));
            }
        }
        out
    }

    /// Content hash of all that a result depends on; the words of the analysis do not count, nor where the judge
    /// is reached and how patiently.
    pub fn hash(&self) -> String {
        let JudgeSpec { model, template, .. } = self.judge.clone();
        let judge = JudgeSpec { model, template, ..JudgeSpec::default() };
        let silent = Plan { analysis: String::new(), judge, ..self.clone() };
        Hasher::new("kto-eval/plan").part(silent.to_toml().as_bytes()).hex()
    }
}

/// The data section keeps its prefix, so that `data.world` becomes `[data.world]`.
#[derive(Serialize)]
struct Within<'p> {
    data: &'p DataSpec,
}

fn section(out: &mut String, header: &str, value: &impl Serialize) {
    let body = table(value);
    match body.starts_with('[') {
        true => *out += &format!("\n{body}"),
        false => *out += &format!("\n{header}\n{body}"),
    }
}

fn table(value: &impl Serialize) -> String {
    toml::to_string(value).expect("plans hold only what TOML can say")
}

/// Sections within it on one line each: a header of their own would end the arm.
fn flat(value: &impl Serialize) -> String {
    let text = table(value);
    let mut out = text.split("\n[").next().unwrap_or_default().to_owned();
    let keys = toml::Table::try_from(value).expect("plans hold only what TOML can say");
    for (key, section) in keys.into_iter().filter(|(_, v)| v.is_table()) {
        let _ = writeln!(out, "{key} = {section}");
    }
    out
}

/// Long text between `'''` where TOML allows it, else as a one-line string.
fn multiline(key: &str, text: &str) -> String {
    let plain = !text.contains("'''")
        && !text.ends_with('\'')
        && text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    match plain && text.contains('\n') {
        true => format!("{key} = '''\n{text}'''\n"),
        false => format!("{key} = {}\n", toml::Value::String(text.to_owned())),
    }
}
