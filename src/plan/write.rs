//! A resolved plan as TOML that parses to the same plan.

use std::fmt::Write;

use serde::Serialize;

use super::slurm::SlurmSpec;
use super::types::*;
use crate::base::hash::Hasher;

impl Plan {
    /// The plan with its defaults written out, but for sections of which it says nothing; [`Plan::parse`] gives the same
    /// plan again.
    pub fn to_toml(&self) -> String {
        self.written(false)
    }

    /// The same with every section, a `[tune]` that is not there as a comment.
    pub fn to_toml_with_every_key(&self) -> String {
        self.written(true)
    }

    fn written(&self, every: bool) -> String {
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
        if every || self.judge != JudgeSpec::default() {
            section(&mut out, "[judge]", &self.judge);
        }
        section(&mut out, "[verdict]", &self.verdict);
        if every || self.sweep != SweepSpec::default() {
            section(&mut out, "[sweep]", &self.sweep);
        }
        if let Some(tune) = &self.tune {
            section(&mut out, "[tune]", tune);
        } else if every {
            let comment = |line: &str| format!("# {line}\n");
            let keys: String = table(&TuneSpec::default()).lines().map(comment).collect();
            out += &format!("\n# Nothing is tuned. With it:\n# [tune]\n{keys}");
        }
        if every || self.prices != PricesSpec::default() {
            section(&mut out, "[prices]", &self.prices);
        }
        // Printed only where the plan sets something: it does not affect what is compared.
        if every || self.slurm != SlurmSpec::default() {
            section(&mut out, "[slurm]", &self.slurm);
        }
        for arm in &self.arms {
            let _ = writeln!(out, "\n[[arm]]\nname = {}", value(arm.name.as_str().into()));
            let _ = writeln!(out, "method = {}", value(arm.method.name().into()));
            for (key, hyperparameter) in arm.method.values() {
                let _ = writeln!(out, "{key} = {}", value(hyperparameter));
            }
            out.push_str(&self.own(arm, every));
            out.push_str(&flat(&arm.train));
            if let Some(trainer) = &arm.trainer {
                out.push_str(&format!("\n[arm.trainer]\n{}", table(trainer)));
            }
        }
        out
    }

    /// What an arm has otherwise than the plan, on a line each.
    fn own(&self, arm: &Arm, every: bool) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: toml::Value| out += &format!("{key} = {value}\n");
        let inline = |x: toml::Table| toml::Value::Table(x);
        if every || arm.sft_first != 0.0 {
            line("sft_first", arm.sft_first.into());
        }
        if arm.budget != self.budget {
            line("budget", toml::Value::try_from(arm.budget).expect("a budget is plain data"));
        }
        let data = |spec: &DataSpec| toml::Table::try_from(spec).expect("a section is a table");
        let differing = differing(&data(&self.data), &data(&arm.data));
        if !differing.is_empty() {
            line("data", inline(differing));
        }
        if let Some(point) = &arm.point {
            line("point", toml::Value::try_from(point).expect("a point is plain data"));
        }
        if !arm.tune.is_empty() {
            line("tune", inline(arm.tune.clone()));
        }
        out
    }

    /// Content hash of all that a result depends on; the words of the analysis do not count, nor where runs
    /// execute, nor where the judge is reached and how patiently.
    pub fn hash(&self) -> String {
        let JudgeSpec { model, template, reward_model, .. } = self.judge.clone();
        let judge = JudgeSpec { model, template, reward_model, ..JudgeSpec::default() };
        let silent = Plan { judge, verdict: self.verdict.renewed(), ..self.silent() };
        Hasher::new("kto-eval/plan").part(silent.to_toml().as_bytes()).hex()
    }

    /// The plan without its words, without where its runs execute, and without what changes no bit of them.
    pub fn silent(&self) -> Self {
        let mut silent = Self { analysis: String::new(), slurm: SlurmSpec::default(), ..self.clone() };
        silent.arms.iter_mut().for_each(|arm| arm.train.gradient_checkpointing = false);
        silent
    }
}

/// The data section keeps its prefix, so that `data.world` becomes `[data.world]`.
#[derive(Serialize)]
struct Within<'p> {
    data: &'p DataSpec,
}

/// The entries of `b` that `a` has otherwise.
fn differing(a: &toml::Table, b: &toml::Table) -> toml::Table {
    let entry = |(key, value): (&String, &toml::Value)| {
        let value = match (a.get(key), value) {
            (Some(toml::Value::Table(x)), toml::Value::Table(y)) => toml::Value::Table(differing(x, y)),
            (Some(x), y) if x == y => return None,
            (_, y) => y.clone(),
        };
        (!value.as_table().is_some_and(toml::Table::is_empty)).then(|| (key.clone(), value))
    };
    b.iter().filter_map(entry).collect()
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
