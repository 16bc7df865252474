//! The final answer against the reference answer.

use regex::Regex;

use super::task::{Grade, Judge, Task};
use crate::base::error::{Context, Result, anyhow};
use crate::suite::definition::AnswerRule;
use crate::suite::metric::Metric;

/// Exact match of the final answer, read strictly and flexibly.
pub struct ExactMatch {
    strict: Regex,
    flexible: Regex,
    ignore: Vec<Regex>,
}

impl ExactMatch {
    /// # Errors
    /// Where an expression of the rule does not parse.
    pub fn new(rule: &AnswerRule) -> Result<Self> {
        let compile = |e: &String| Regex::new(e).with_context(|| format!("answer rule `{e}`"));
        Ok(Self {
            strict: compile(&rule.strict)?,
            flexible: compile(&rule.flexible)?,
            ignore: rule.ignore.iter().map(compile).collect::<Result<_>>()?,
        })
    }

    fn normalise(&self, answer: &str) -> String {
        self.ignore.iter().fold(answer.to_owned(), |a, e| e.replace_all(&a, "").into_owned()).to_lowercase()
    }

    fn equal(&self, found: Option<&str>, reference: &str) -> f64 {
        let same = found.is_some_and(|f| self.normalise(f.trim()) == self.normalise(reference));
        if same { 1.0 } else { 0.0 }
    }
}

impl Judge for ExactMatch {
    fn grade(&self, task: &Task, completion: &str) -> Result<Grade> {
        let reference = task.answer.as_deref();
        let reference = reference.ok_or_else(|| anyhow!("example `{}` has no reference answer", task.id))?;
        let marked = self.strict.captures(completion).and_then(|c| c.get(1)).map(|m| m.as_str());
        let last = self.flexible.find_iter(completion).last().map(|m| m.as_str());
        let (strict, flexible) = (self.equal(marked, reference), self.equal(last, reference));
        Ok(Grade {
            reward: Some(strict),
            values: vec![(Metric::ExactMatch, strict), (Metric::ExactMatchFlexible, flexible)],
            counts: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::shipped::find;

    /// What lm-evaluation-harness 0.4.13 says of the same responses (task gsm8k, version 3.0).
    #[test]
    fn gsm8k_answers_are_read_as_lm_evaluation_harness_reads_them() {
        let judge = ExactMatch::new(&find("gsm8k", "generation").unwrap().answer.unwrap()).unwrap();
        let reference = "She sells 9 * 2 = $<<9*2=18>>18 a day.\n#### 1,018";
        let task = Task { answer: Some(reference.to_owned()), ..Task::default() };
        for (response, strict, flexible) in [
            ("so it is\n#### 1018", 1.0, 1.0),
            ("so it is\n#### 1,018.", 1.0, 1.0),
            ("the answer is $1,018.", 0.0, 1.0),
            ("#### 1018 but then 5", 1.0, 0.0),
            ("#### 5\n#### 1018", 0.0, 1.0),
            ("#### -1018", 0.0, 0.0),
            ("####1018", 0.0, 1.0),
            ("no number", 0.0, 0.0),
            ("", 0.0, 0.0),
        ] {
            let grade = judge.grade(&task, response).unwrap();
            let expected = [(Metric::ExactMatch, strict), (Metric::ExactMatchFlexible, flexible)];
            assert_eq!(grade.values, expected, "{response:?}");
        }
        assert!(judge.grade(&Task::default(), "1").is_err(), "no reference answer");
    }
}
