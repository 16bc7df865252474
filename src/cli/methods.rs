//! `kto-eval methods`.

use serde_json::json;

use super::args::Common;
use super::output::{print, print_json};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::objective::{Feedback, info};
use crate::plan::METHODS;

pub fn run(common: &Common) -> Result<Exit> {
    common.only("methods", &["--json"])?;
    if common.json {
        print_json(&listed()?)?
    } else {
        print(&text()?)?
    }
    Ok(Exit::Done)
}

fn learns_from(feedback: Feedback) -> &'static str {
    match feedback {
        Feedback::Paired => "pairs",
        Feedback::Unpaired => "labelled completions",
        Feedback::Completions => "desirable completions",
        Feedback::Prompts => "labels of its own samples",
    }
}

fn text() -> Result<String> {
    let mut out = String::new();
    for method in METHODS {
        let about = info(method.name)?;
        let reference = if about.needs_reference { ", reference" } else { "" };
        out += &format!(
            "{:<13} {} (arXiv {}; {}{reference})\n",
            method.name,
            about.title,
            about.paper,
            learns_from(about.feedback)
        );
        for key in method.keys {
            let (default, words) = (key.takes.default(), key.takes.words());
            out += &format!("{:13}   {} = {default}  {} [{words}]\n", "", key.name, key.help);
        }
    }
    Ok(out)
}

fn listed() -> Result<Vec<serde_json::Value>> {
    METHODS
        .iter()
        .map(|method| {
            let about = info(method.name)?;
            let keys: Vec<_> = method
                .keys
                .iter()
                .map(|k| json!({"name": k.name, "default": k.takes.default(), "takes": k.takes.words(), "help": k.help}))
                .collect();
            Ok(json!({
                "name": method.name,
                "title": about.title,
                "feedback": learns_from(about.feedback),
                "reference": about.needs_reference,
                "paper": about.paper,
                "keys": keys,
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{build, methods};
    use crate::plan::{Overrides, Plan, method_names};

    #[test]
    fn plans_and_objectives_know_the_same_methods_and_agree_on_pairs() {
        let objectives: Vec<&str> = methods().iter().map(|m| m.name).collect();
        assert_eq!(method_names(), objectives);
        for method in METHODS {
            let about = info(method.name).unwrap();
            assert_eq!(method.unit == 2, about.feedback == Feedback::Paired, "{}", method.name);
            let set = vec!["arm.sft.method=".to_owned() + method.name];
            let plan = Plan::open("quickstart", &Overrides { set, ..Overrides::default() });
            // The name that plans take builds that objective, with its defaults.
            let own = about.feedback == Feedback::Prompts || method.name == "ppo-offline";
            if !own && !["dpo", "kto"].contains(&method.name) {
                assert_eq!(build(&plan.unwrap().arms[0].method).unwrap().name(), method.name);
            }
        }
    }
}
