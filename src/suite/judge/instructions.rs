//! The judge of checkable instructions.

use serde_json::Value;

use super::checks::Instruction;
use super::task::{Grade, Judge, Task};
use crate::base::error::{Context, Result, anyhow, ensure};
use crate::suite::metric::Metric;

/// Grades a completion by the instructions in its row (`instruction_id_list`, `kwargs`).
pub struct Instructions;

impl Instructions {
    /// The row's instructions; the id of the first that is not implemented, where there is one.
    fn read(task: &Task) -> Result<std::result::Result<Vec<Instruction>, String>> {
        let list = |key: &str| {
            let value = task.row.get(key).and_then(Value::as_array);
            value.ok_or_else(|| anyhow!("example `{}` has no list `{key}`", task.id))
        };
        let (ids, arguments) = (list("instruction_id_list")?, list("kwargs")?);
        ensure!(
            !ids.is_empty() && ids.len() == arguments.len(),
            "example `{}` has {} instructions and {} sets of arguments",
            task.id,
            ids.len(),
            arguments.len()
        );
        let mut read = Vec::with_capacity(ids.len());
        for (id, arguments) in ids.iter().zip(arguments) {
            let id = id
                .as_str()
                .ok_or_else(|| anyhow!("example `{}`: an instruction id is no string", task.id))?;
            match Instruction::parse(id, arguments).with_context(|| format!("example `{}`", task.id))? {
                Some(instruction) => read.push(instruction),
                None => return Ok(Err(id.to_owned())),
            }
        }
        Ok(Ok(read))
    }
}

impl Judge for Instructions {
    fn refuses(&self, task: &Task) -> Result<Option<String>> {
        Ok(Self::read(task)?.err().map(|id| format!("instruction `{id}` is not implemented")))
    }

    fn grade(&self, task: &Task, completion: &str) -> Result<Grade> {
        let instructions =
            Self::read(task)?.map_err(|id| anyhow!("instruction `{id}` is not implemented"))?;
        let n = instructions.len() as f64;
        let strict = instructions.iter().filter(|i| i.strict(completion)).count() as f64;
        let loose = instructions.iter().filter(|i| i.loose(completion)).count() as f64;
        let all = |k: f64| if k == n { 1.0 } else { 0.0 };
        Ok(Grade {
            reward: Some(strict / n),
            values: vec![(Metric::PromptStrict, all(strict)), (Metric::PromptLoose, all(loose))],
            counts: vec![(Metric::InstructionStrict, strict, n), (Metric::InstructionLoose, loose, n)],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_is_followed_where_every_instruction_is() {
        let row = json!({
            "instruction_id_list": ["punctuation:no_comma", "startend:end_checker"],
            "kwargs": [{}, {"end_phrase": "Bye.", "relation": null}],
        });
        let mut task = Task { row: row.as_object().unwrap().clone(), ..Task::default() };
        let grade = Instructions.grade(&task, "Well, bye.").unwrap();
        assert_eq!(grade.values, [(Metric::PromptStrict, 0.0), (Metric::PromptLoose, 0.0)]);
        assert_eq!(grade.counts[0], (Metric::InstructionStrict, 1.0, 2.0));
        // Loose: without its first line the response has no comma.
        let grade = Instructions.grade(&task, "Sure, here:\nbye.").unwrap();
        assert_eq!(grade.values, [(Metric::PromptStrict, 0.0), (Metric::PromptLoose, 1.0)]);
        assert_eq!(Instructions.refuses(&task).unwrap(), None);
        task.row.insert(
            "instruction_id_list".to_owned(),
            json!(["language:response_language", "punctuation:no_comma"]),
        );
        let refusal = Instructions.refuses(&task).unwrap();
        assert_eq!(refusal.as_deref(), Some("instruction `language:response_language` is not implemented"));
        task.row.remove("kwargs");
        assert!(Instructions.refuses(&task).is_err());
    }
}
