//! Placeholders in an external trainer's command.

use super::types::*;
use crate::base::error::{Result, anyhow};

/// Placeholders whose values a run's folders give; the rest follow from the plan.
const PATHS: [&str; 4] = ["model", "data", "out", "metrics"];

/// What an arm's placeholders stand for, by name. Paths are empty until a run fills them.
pub fn values(arm: &Arm, seed: u64) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = PATHS.map(|p| (p.to_owned(), String::new())).into();
    let mut put = |name: &str, value: String| values.push((name.to_owned(), value));
    put("seed", seed.to_string());
    put("budget", arm.budget.amount().to_string());
    put(&format!("budget.{}", arm.budget.currency()), arm.budget.amount().to_string());
    put("max_length", arm.data.max_length.to_string());
    let train = toml::Table::try_from(&arm.train).expect("every section is a table");
    for (key, value) in train {
        put(&key, plain(&value));
    }
    for (key, value) in arm.method.values() {
        put(key, plain(&value));
    }
    values
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A word of a command with its placeholders filled; `{{` and `}}` stand for braces.
///
/// # Errors
/// A placeholder that is not known (the known ones are listed), a brace without its other.
pub fn fill(word: &str, values: &[(String, String)]) -> Result<String> {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        out += &rest[..at];
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            out += brace;
            rest = after;
            continue;
        }
        let end = after.find('}').filter(|_| brace == "{");
        let end = end.ok_or_else(|| {
            anyhow!("has a lone `{brace}` in `{word}`; write `{brace}{brace}` for the character")
        })?;
        let name = &after[..end];
        let known = values.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        out += known.ok_or_else(|| {
            let names: Vec<String> = values.iter().map(|(n, _)| format!("{{{n}}}")).collect();
            anyhow!("holds {{{name}}}, which is nothing here (known: {})", names.join(", "))
        })?;
        rest = &after[end + 1..];
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;
    use crate::plan::Overrides;

    const PLAN: &str = r#"
seeds = [3]
budget = { tokens = 5000 }
[model]
source = "m"
[data]
source = "d"
[[arm]]
name = "trl"
method = "kto"
beta = 0.2
[arm.trainer]
command = ["python", "t.py", "--out={out}", "{{x}}", "{seed}", "{budget.tokens}", "{beta}", "{learning_rate}"]
"#;

    fn parse(text: &str) -> Result<Plan> {
        Plan::parse(text, "p.toml", &Overrides::default())
    }

    #[test]
    fn words_are_filled_from_the_plan_and_survive_writing() {
        let plan = parse(PLAN).unwrap();
        assert_eq!(parse(&plan.to_toml()).unwrap(), plan);
        let arm = &plan.arms[0];
        let values = values(arm, 3);
        let command = &arm.trainer.as_ref().unwrap().command;
        let filled: Vec<String> = command.iter().map(|w| fill(w, &values).unwrap()).collect();
        assert_eq!(filled[2..], ["--out=", "{x}", "3", "5000", "0.2", "0.000005"].map(str::to_owned));
    }

    #[test]
    fn a_command_that_cannot_work_is_refused_with_its_line() {
        for (from, to, says) in [
            ("{seed}", "{sead}", "p.toml:13: `arm.trl.trainer.command` holds {sead}"),
            ("{budget.tokens}", "{budget.steps}", "{budget.tokens}"),
            ("--out={out}", "--out=x", "has no {out}"),
            ("{{x}}", "{x", "lone `{`"),
            ("command = [", "timeout_seconds = 0\ncommand = [", "`arm.trl.trainer.timeout_seconds` is 0"),
            ("command = [", "data = \"parquet\"\ncommand = [", "unknown variant `parquet`"),
            ("command = [\"python\", ", "command = [\"\", ", "is empty; it names the program"),
            ("beta = 0.2\n", "beta = 0.2\ntrainers = 1\n", "unknown key for method kto `trainers`"),
        ] {
            assert!(PLAN.contains(from), "{from}");
            let error = render(&parse(&PLAN.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(says), "{to}: {error}");
        }
        let nameless = PLAN.replacen("method = \"kto\"\nbeta = 0.2\n", "", 1).replacen(", \"{beta}\"", "", 1);
        let plan = parse(&nameless).unwrap();
        assert_eq!((plan.arms[0].method.name(), parse(&plan.to_toml()).unwrap()), ("external", plan.clone()));
        assert!(parse(&PLAN.replacen("\"kto\"", "\"external\"", 1)).is_err(), "external has no beta");
        let error = parse(
            "seeds=[1]\nbudget={steps=1}\n[model]\nsource=\"m\"\n[data]\nsource=\"d\"\n[[arm]]\nmethod=\"external\"\n",
        );
        assert!(render(&error.unwrap_err()).contains("unknown method `external`"));
    }

    #[test]
    fn an_arm_of_a_sweep_is_told_its_own_budget_and_length() {
        let swept = PLAN.replacen("tokens = 5000", "tokens = [1000, 5000]", 1).replacen(
            "source = \"d\"",
            "source = \"d\"\nmax_length = [64, 128]",
            1,
        );
        let plan = parse(&swept).unwrap();
        let told: Vec<String> = plan
            .arms
            .iter()
            .map(|arm| fill("{budget.tokens} {budget} {max_length}", &values(arm, 3)).unwrap())
            .collect();
        assert_eq!(told, ["1000 1000 64", "5000 5000 64", "1000 1000 128", "5000 5000 128"]);
    }

    #[test]
    fn what_an_external_arm_could_not_do_is_refused() {
        let error = render(&parse(&PLAN.replacen("beta = 0.2", "sft_first = 0.4", 1)).unwrap_err());
        assert!(
            error.contains("p.toml:11: `arm.trl.sft_first` is 0.4") && error.contains("hint: "),
            "{error}"
        );
        let tuned = PLAN.replacen("[[arm]]", "[tune]\ntrials = 1\n[[arm]]", 1);
        for own in ["tune = { beta = [0.1] }", "beta = 0.3"] {
            let error = render(&parse(&tuned.replacen("beta = 0.2", own, 1)).unwrap_err());
            assert!(error.contains("p.toml:14: `arm.trl.trainer` is a command"), "{error}");
        }
    }

    #[test]
    fn an_arm_with_another_command_is_another_run() {
        let (a, b) = (parse(PLAN).unwrap(), parse(&PLAN.replacen("t.py", "u.py", 1)).unwrap());
        assert_ne!(a.runs()[0].id, b.runs()[0].id);
        assert_ne!(a.hash(), b.hash());
    }
}
