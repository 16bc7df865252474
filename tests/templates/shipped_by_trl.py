"""Renders every chat template that TRL ships, with transformers: prints JSON cases in the form of golden.json.

    pip install trl transformers && python tests/templates/shipped_by_trl.py
"""

import json
from importlib.resources import files

from transformers.utils.chat_template_utils import render_jinja_template

CHATS = {
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße & <tags> it's"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ],
    "plain": [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A colour.\n"}],
    "thinking": [
        {"role": "user", "content": " 1 + 1? "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"},
        {"role": "user", "content": "And 2 + 2?"},
        {"role": "assistant", "content": "4"},
    ],
}


def render(template, messages, prompt):
    try:
        texts, _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
        )
        return texts[0], None
    except Exception as error:
        # A template may refuse a conversation, and so must ours; an engine's own words are its own.
        return None, str(error) if type(error).__name__ == "TemplateError" else ""


cases = []
for path in sorted((files("trl") / "chat_templates").iterdir()):
    if path.name.endswith(".jinja"):
        template = path.read_text()
        for chat, messages in CHATS.items():
            without, error = render(template, messages, False)
            prompted, _ = render(template, messages, True)
            cases.append({
                "name": f"{path.name} on {chat}", "template": template, "messages": messages, "error": error or "",
                "without_prompt": without, "with_prompt": prompted,
            })
print(json.dumps(cases))
