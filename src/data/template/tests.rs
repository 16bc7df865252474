use super::*;
use serde_json::json;

#[test]
fn the_default_is_a_transcript_whose_prompt_ends_where_the_assistant_speaks() {
    let user = json!({"role": "user", "content": "hi"});
    let reply = json!({"role": "assistant", "content": "hello"});
    let template = Template::default();
    let prompt = template.render(std::slice::from_ref(&user), true).unwrap();
    assert_eq!(prompt, "\n\nHuman: hi\n\nAssistant:");
    assert_eq!(template.render(&[user, reply], false).unwrap(), format!("{prompt} hello"));
}
