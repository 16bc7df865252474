"""Renders the constructs that chat templates use with Jinja2, set up as transformers sets it up.

    pip install jinja2==3.1.6 && python tests/templates/make.py > tests/templates/golden.json
"""

import json
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}`: marks what the assistant wrote and changes no text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.If(jinja2.nodes.Const(True), body, [], [], lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Grüße & <tags> it's  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello.\n"},
    {"role": "user", "content": "Bye"},
]
TOOLS = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "get", "arguments": {"zone": "north", "at": [1, 2.5, True, None]}}}
        ],
    },
    {"role": "tool", "content": "sunny", "name": "get"},
]

CASES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        CHAT,
    ),
    "blocks on their own lines leave no trace": (
        "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n[U] {{ m.content }}\n"
        "    {% elif m.role == 'system' %}\n[S] {{ m.content }}\n    {% else %}\n[A] {{ m.content }}{{ eos_token }}\n"
        "    {% endif %}\n{% endfor %}\nend",
        CHAT,
    ),
    "trimming by hand": (
        "a  {{- ' b ' -}}  c\n  {%- set x = 'd' %}\n  {{ x }}\n{# gone #}\n  {%+ if true %} e {% endif +%}\nf",
        CHAT,
    ),
    "loop variables": (
        "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }}{% if loop.first %}F{% endif %}{% if loop.last %}L{% endif %}"
        "{% if not loop.first and loop.previtem.role != m.role %}:{% endif %} {% endfor %}",
        CHAT,
    ),
    "namespace": (
        "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}"
        "{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }}",
        CHAT,
    ),
    "system message apart": (
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}"
        "{% set system = '' %}{% set rest = messages %}{% endif %}<<SYS>>{{ system }}<</SYS>>{{ rest | length }}{{ rest[-1].content }}",
        CHAT,
    ),
    "methods of strings": (
        "{% for m in messages %}{{ m.content.strip() }}|{{ m['content'].startswith('Be') }}|{{ m.content.split('</think>')[-1].lstrip('\\n') }}|"
        "{{ m.content.replace('e', 'E') }}|{{ m.role.upper() }}{{ m.role.title() }}{{ m.role.capitalize() }}|{{ m.content.rstrip('.\\n') }}|"
        "{{ m.content.find('e') }};{% endfor %}",
        CHAT,
    ),
    "reversed, and a search from the end": (
        "{% for m in messages[::-1] %}{% set index = (messages | length - 1) - loop.index0 %}{{ index }}{{ m.role }}{% if m.role == 'assistant' %}"
        "{% break %}{% endif %} {% endfor %}",
        CHAT,
    ),
    "continue": ("{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}", CHAT),
    "tests": (
        "{{ tools is defined }} {{ tools is not defined }} {{ messages[0].content is string }} {{ messages is iterable }} "
        "{{ none is none }} {{ messages[0] is mapping }} {{ 3 is odd }} {{ 'a' in 'cat' }} {{ 'role' in messages[0] }} {{ 'x' not in messages[0] }}",
        CHAT,
    ),
    "Python's names for values": ("{{ true }} {{ none }} {{ 1 }} {{ 1.5 }} {{ ['a', 1, none] }} {{ messages[0] }} {{ undefined_name }}", CHAT),
    "filters": (
        "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
        "{{ '  x ' | trim }} {{ x | default('y') }} {{ (messages | first).role }} {{ (messages | last).role }} {{ 'ab' | upper }} "
        "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | map('length') | list }}",
        CHAT,
    ),
    "macro": (
        "{% macro turn(role, text='none') %}<{{ role }}>{{ text | trim }}</{{ role }}>{% endmacro %}"
        "{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}{{ turn('x') }}",
        CHAT,
    ),
    "tojson": ("{{ messages | tojson }}\n{{ messages[1] | tojson(indent=4) }}\n{{ [] | tojson }}{{ {} | tojson(indent=2) }}", TOOLS),
    "tojson with the arguments of json.dumps": (
        "{{ messages | tojson(sort_keys=true) }}\n{{ messages | tojson(separators=(',', ':')) }}\n"
        "{{ messages | tojson(ensure_ascii=true, indent=2, separators=('; ', '=')) }}{{ 'é😀' | tojson(ensure_ascii=true) }}",
        TOOLS,
    ),
    "tools and documents are none": (
        "{% if tools is not none %}tools{% endif %}{% if documents is none %}no documents{% endif %}{{ tools is defined }}{{ tools }} "
        "{% for x in (tools, missing, 3, true, 'a', messages, messages[0], (1, 2)) %}{{ x is iterable }} {% endfor %}",
        CHAT,
    ),
    "tool calls": (
        "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for call in m.tool_calls %}{% set f = call.function %}"
        '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}{% for k, v in f.arguments.items() %}<{{ k }}={{ v }}>{% endfor %}'
        "{% endfor %}{% elif m.role == 'tool' %}{{ m['name'] }}:{{ m.content }}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
        TOOLS,
    ),
    "get with a default": ("{% for m in messages %}{{ m.get('name', 'nobody') }} {{ m.get('content') }} {% endfor %}", TOOLS),
    "generation blocks": (
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\nA: {%- generation -%}\n {{ m.content }}{{ eos_token }}\n{%- endgeneration -%}\n"
        "{% else %}\n{% generation %}\nU: {{ m.content }}\n{% endgeneration %}\n{% endif %}\n{% endfor %}",
        CHAT,
    ),
    "a conditional expression and concatenation": (
        "{{ ('yes' if add_generation_prompt else 'no') ~ '-' ~ 3 ~ '-' ~ messages[0].role }}{{ 7 // 2 }}{{ 7 % 2 }}{{ 'a' * 3 }}",
        CHAT,
    ),
    "an exception": ("{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}", CHAT),
}

out = []
for name, (source, messages) in CASES.items():
    case = {"name": name, "template": source, "messages": messages}
    for prompt in (False, True):
        try:
            text = environment.from_string(source).render(
                messages=messages, tools=None, documents=None, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
            )
        except jinja2.exceptions.TemplateError as error:
            case["error"] = str(error)
            continue
        case["with_prompt" if prompt else "without_prompt"] = text
    out.append(case)
json.dump(out, sys.stdout, ensure_ascii=False, indent=1)
print()
