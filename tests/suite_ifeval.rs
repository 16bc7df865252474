//! The checkable instructions against the verdicts of the official code on texts made for it.

use kto_eval::suite::judge::checks::{Instruction, NOT_IMPLEMENTED};
use serde_json::{Value, json};

#[test]
fn verdicts_equal_those_of_the_official_code() {
    let golden: Value = serde_json::from_str(include_str!("data/ifeval_checks.json")).unwrap();
    let responses: Vec<&str> =
        golden["responses"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    let (mut kinds, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let instruction = Instruction::parse(id, &case["kwargs"]).unwrap().unwrap();
        kinds.insert(id);
        let bits = |key: &str| case[key].as_str().unwrap().chars().map(|c| c == '1').collect::<Vec<_>>();
        for ((response, strict), loose) in responses.iter().zip(bits("strict")).zip(bits("loose")) {
            let ours = (instruction.strict(response), instruction.loose(response));
            if ours != (strict, loose) {
                wrong.push(format!(
                    "{id} {} on {response:?}: {ours:?}, official {:?}",
                    case["kwargs"],
                    (strict, loose)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(kinds.len(), 22, "every implemented kind is compared");
}

#[test]
fn what_cannot_be_checked_is_said_and_not_guessed() {
    for id in NOT_IMPLEMENTED {
        assert!(Instruction::parse(id, &json!({})).unwrap().is_none());
    }
    let error = |id, args| format!("{:#}", Instruction::parse(id, &args).unwrap_err());
    assert!(error("keywords:existence", json!({"keywords": null})).contains("`keywords` must be a list"));
    assert!(
        error("length_constraints:number_words", json!({"num_words": 3, "relation": "most"}))
            .contains("at least")
    );
    assert!(error("keywords:exist", json!({})).contains("unknown kind"));
}
