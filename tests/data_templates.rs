//! Chat templates against Jinja2 as transformers sets it up: `tests/templates/make.py` made the golden file.

use kto_eval::base::error::render;
use kto_eval::data::Template;
use serde_json::Value;

#[test]
fn constructs_of_chat_templates_render_as_in_jinja2() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("templates/golden.json")).unwrap();
    assert!(cases.len() >= 12);
    let mut wrong = Vec::new();
    for case in &cases {
        let template = Template::parse(case["template"].as_str().unwrap(), "<s>", "</s>", "test").unwrap();
        let messages = case["messages"].as_array().unwrap();
        for (key, prompt) in [("without_prompt", false), ("with_prompt", true)] {
            let mine = template.render(messages, prompt);
            let same = match (&mine, case[key].as_str()) {
                (Ok(text), Some(expected)) => text == expected,
                (Err(error), None) => render(error).contains(case["error"].as_str().unwrap()),
                _ => false,
            };
            if !same {
                wrong.push(format!("{}\n  mine:     {mine:?}\n  expected: {:?}", case["name"], case[key]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_template_that_does_not_parse_shows_its_line() {
    let error =
        Template::parse("{{ bos_token }}\n{% for m in messages %}\n{{ m.content }\n", "", "", "x.jinja");
    let text = render(&error.unwrap_err());
    assert!(text.contains("chat template (x.jinja), line 3"), "{text}");
    assert!(text.contains("the line reads: {{ m.content }"), "{text}");
}

#[test]
fn a_missing_field_is_an_error_and_not_silence() {
    let template = Template::parse("{{ messages[0].content.parts[0] }}", "", "", "x.jinja").unwrap();
    let messages = [serde_json::json!({"role": "user", "content": "hi"})];
    let text = render(&template.render(&messages, false).unwrap_err());
    assert!(text.contains("line 1"), "{text}");
}

#[test]
fn the_date_is_today_s() {
    let template = Template::parse("{{ strftime_now('%Y') }}", "", "", "x.jinja").unwrap();
    let year: i32 = template.render(&[], false).unwrap().parse().unwrap();
    assert!((2024..2200).contains(&year));
}
