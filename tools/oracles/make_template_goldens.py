#!/usr/bin/env python3
"""Render chat templates with the real jinja2, set up as transformers sets it up, and write what temper must equal.

    make_template_goldens.py FOLDER

Reads FOLDER/*.jinja and writes FOLDER/goldens.json: a list of cases {template, conversation, messages, variables,
add_generation_prompt, expected}, where `expected` is null if the template refuses the conversation or fails.
Needs jinja2 (3.1). tests/data/templates is what the tests read; TEMPER_TEMPLATES=FOLDER makes the golden test read another
folder, so that any collection of templates can be compared. strftime_now shows SOURCE_DATE_EPOCH in UTC on both sides.
"""

import datetime
import json
import pathlib
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

EPOCH = 1753612800  # 2025-07-27 10:40 UTC

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a \"place\", <now> & here",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A city: Zürich, 東京"},
                "days": {"type": "integer", "minimum": 1, "default": 3},
                "precision": {"type": "number", "default": 0.5},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["place"],
        },
        "return": {"type": "object"},
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}, "required": []}},
}


def call(name, arguments, number):
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def message(role, content, **extra):
    return {"role": role, "content": content, **extra}


SYSTEM = message("system", "You are terse.")
WEATHER_TURNS = [
    message("user", "Weather in Zürich?"),
    message("assistant", "", tool_calls=[call("get_weather", {"place": "Zürich", "days": 2, "exact": True, "x": None, "f": 1e-7}, 1)]),
    message("tool", '{"temp": 21.5}', name="get_weather", tool_call_id="call00001"),
    message("assistant", "It is 21.5 °C."),
    message("user", "And the time?"),
]

CONVERSATIONS = {
    "one turn": ([message("user", "Hello")], {}),
    "two turns": ([message("user", "Hi"), message("assistant", "Hello!"), message("user", "1+1?"), message("assistant", "2")], {}),
    "system": ([SYSTEM, message("user", "Hi"), message("assistant", "Yes?"), message("user", "Bye")], {}),
    "white space": ([message("system", "  a \n"), message("user", "\n\n x\t"), message("assistant", " y \n\n"), message("user", " z ")], {}),
    "unicode": ([message("user", "Grüße 👩‍👩‍👧 東京\u00a0\u200b<b>&'\"</b>"), message("assistant", "\u2028مرحبا"), message("user", "\\n {{ x }}")], {}),
    "empty": ([message("system", ""), message("user", ""), message("assistant", ""), message("user", "")], {}),
    "reasoning": (
        [message("user", "2*3?"), message("assistant", "6", reasoning_content="two threes\n"),
         message("user", "so?"), message("assistant", "Six.", reasoning_content="\nhm")], {}),
    "think tags": (
        [message("user", "2*3?"), message("assistant", "<think>\ntwo threes\n</think>\n\n6"), message("user", "so?"),
         message("assistant", "<think>\nhm\n</think>\n\nSix.")], {}),
    "thinking off": ([message("user", "2*3?")], {"enable_thinking": False}),
    "thinking on": ([SYSTEM, message("user", "2*3?")], {"enable_thinking": True, "thinking": True}),
    "tools": (WEATHER_TURNS[:1], {"tools": [WEATHER, CLOCK]}),
    "tool use": ([SYSTEM, *WEATHER_TURNS], {"tools": [WEATHER, CLOCK]}),
    "tool use, answered": (WEATHER_TURNS[:4], {"tools": [WEATHER]}),
    "tool call as text": (
        [message("user", "Time?"), message("assistant", None, tool_calls=[call("clock", "{\"a\": 1}", 2)]),
         message("tool", "10:40", name="clock", tool_call_id="call00002")], {"tools": [CLOCK]}),
    "two calls": (
        [message("user", "Both?"),
         message("assistant", "Looking.", tool_calls=[call("clock", {}, 3), call("get_weather", {"place": "Rome"}, 4)]),
         message("tool", "10:40", name="clock", tool_call_id="call00003"),
         message("tool", "sun", name="get_weather", tool_call_id="call00004"), message("assistant", "Done.")],
        {"tools": [WEATHER, CLOCK]}),
    "parts": ([message("user", [{"type": "text", "text": "See "}, {"type": "text", "text": "this"}]), message("assistant", "ok")], {}),
    "assistant first": ([message("assistant", "Hello?"), message("user", "Yes")], {}),
    "two users": ([message("user", "a"), message("user", "b")], {}),
    "other role": ([message("developer", "d"), message("user", "b"), message("critic", "c")], {}),
    "documents": ([message("user", "Sum up")], {"documents": [{"title": "T", "text": "body"}, {"title": "U", "text": "more"}]}),
    "date": ([message("user", "Day?")], {"date_string": "01 Jan 2025"}),
    "no messages": ([], {}),
}

# Templates of one line or so: a point of the language each.
SNIPPETS = r"""
{{ [1, 2.0, 1e20, 1e-5, -0.0, 'a', "it's", none, true, {'k': (1,)}, [], ()] }}
{{ 'tab\t nl\n quote" both\' \x41 \u00e9 \q' | string }}|{{ ['\u200b\n', 'é', '\x7f', '"\''] }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 + true }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' in 'abc' }} {{ 3 not in [1, 2] }} {{ 1 == 1.0 }} {{ 'b' > 'a' }} {{ [1, 2] < [1, 3] }} {{ not 1 == 2 }}
{{ 'x' ~ 1 ~ none ~ 2.50 ~ undefined_name }} {{ 'ab' * 3 }} {{ [0] * 2 + [1] }} {{ (1, 2) + (3,) }}
{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-3:] }} {{ [1, 2, 3, 4][::2] }} {{ [1, 2, 3][5:] }} {{ 'äöü'[1] }} {{ 'abc'[-1:-3:-1] }}
{{ 'a' if false }}|{{ 'a' if false else 'b' if true else 'c' }}|{{ 1 and 0 or 'z' }}
{% for x in [3, 1, 2] if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% else %}none{% endfor %}
{% for x in [] %}a{% else %}none{% endfor %} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}
{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in 'abc' %}{{ loop.previtem }}-{{ loop.nextitem }} {{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }} {{ loop.cycle('o', 'e') }} {% endfor %}
{% set x = 1 %}{% for i in [1] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b=[]) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {{ ns.missing is defined }}
{% set t %} a {{ 1 }} {% endset %}[{{ t }}] {% set t | trim | upper %} a {% endset %}[{{ t }}]
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ caller() if caller }}{% endmacro %}{{ m(1) }} {{ m(1, c=5) }} {% call m('x') %}body{% endcall %} {{ m() }}
{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}
{% macro late() %}{{ later }}{% endmacro %}{% set later = 'seen' %}{{ late() }}
{% macro twice() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% call(u) twice() %}<{{ u }}>{% endcall %}
{% filter upper | replace('A', 'b') %}abc{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}
{% raw %}{{ not }} {% me %}{% endraw %} {# comment #}x
{{ {'b': 1, 'a': [1.5, none, true], 'é': '<&>"\u2028'} | tojson }} {{ {'b': 1, 'a': {}} | tojson(sort_keys=true, separators=(',', ':')) }} {{ 'é' | tojson(ensure_ascii=true) }}
{{ {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) }} {{ [] | tojson(indent=4) }} {{ [1e16, 1.0, 0.1, 123456789012345680.0] | tojson }}
{{ undefined_name | tojson }}
{{ undefined_name.x }}
{{ {}.x }}|{{ {'a': none}.a.b }}|{{ none | default('d') }}|{{ none | default('d', true) }}|{{ x | default('d') }}
{{ undefined_name + 1 }}
{{ undefined_name | length }}{{ undefined_name is iterable }}{{ undefined_name is sequence }}{{ undefined_name is string }}{{ 'a' in undefined_name }}{{ undefined_name == undefined_other }}
{% for x in undefined_name %}{% endfor %}ok {{ undefined_name | join('-') }} {{ undefined_name | list }} {{ [undefined_name] }}
{{ [1, 2, 3] | map('string') | join('+') }} {{ [{'a': {'b': 1}}, {'a': {'b': 2}}] | map(attribute='a.b') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }}
{{ [1, 0, 2, none] | select | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3] | reject('equalto', 2) | list }} {{ [{'r': 'u'}, {'r': 'a'}] | selectattr('r', 'equalto', 'a') | list }} {{ [{'r': 1}, {'s': 2}] | rejectattr('r', 'defined') | list }}
{{ ([1] | map('string')) is sequence }}
{% set g = [1, 2] | map('string') %}{{ g | join }}|{{ g | join }}
{{ ([1, 2] | select)[0] }}|{{ ([1] | select) | length }}
{{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }} {{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(by='value') }} {{ ['a', 'A', 'b'] | unique | list }}
{{ [1, 5, 3] | max }} {{ [] | min }}| {{ [1, 2] | sum }} {{ [[1], [2]] | sum(start=[]) }} {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }} {{ [] | first }}|{{ 'abc' | last }}
{{ 'a b\nc\n\nd' | indent }}|{{ 'a\n\nb\n' | indent(2, true, true) }}|{{ 'a\nb' | indent('>') }}
{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '3.9' | int }} {{ 2.7 | int }} {{ '1.5' | float }} {{ 2.5 | round }} {{ 2.345 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ -3 | abs }} {{ '0x1f' | int(base=16) }}
{{ '  x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'hello wORLD' | title }} {{ 'hello wORLD' | capitalize }} {{ 'ß' | upper }} {{ 'ÀÉ' | lower }} {{ "it's a-b" | title }} {{ 'a b  c' | wordcount }}
{{ 'aXbXc'.split('X') }} {{ ' a  b '.split() }} {{ 'aXbXc'.split('X', 1) }} {{ 'aXbXc'.rsplit('X', 1) }} {{ ' a b c '.split(none, 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ ''.split('x') }} {{ ''.split() }}
{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'äbc'.index('c') }} {{ 'aaa'.count('a') }} {{ 'a\nb\r\nc'.splitlines() }} {{ '-'.join(['a', 'b']) }} {{ 'a=b=c'.partition('=') }} {{ 'abc'.removeprefix('a') }}
{{ 'x'.startswith(('a', 'x')) }} {{ 'abc'.endswith('bc') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.title() }} {{ "they're".title() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'Ab'.isupper() }} {{ '7'.zfill(3) }} {{ 'ab'.replace('', '-') }}
{{ '%s is %d and %s%%' % ('a', 3, [1]) }} {{ '%s' % 'x' }} {{ '{} {1}'.format(1, 2) }}
{{ '{}-{}'.format('a', 1.5) }} {{ '{0}{0}{x}'.format('a', x=none) }} {{ '%s-%s' | format('a', 'b') }}
{{ {'items': 1}.items is callable }}
{{ {'items': 1}['items'] }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() }} {{ {'a': 1}.items() }} {{ {'a': 1} | items | list }} {{ dict(a=1) }}
{{ [1].append(2) }}
{{ [1, 2].index(2) }} {{ [1].append is defined }} {{ [1, 1].count(1) }} {{ range(3) }} {{ range(3) | list }} {{ range(1, 7, 2)[1] }} {{ range(0) | length }}
{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ 'a' is sequence }}{{ {} is mapping }}{{ none is none }}{{ x is undefined }}{{ 4 is divisibleby 2 }}{{ 3 is odd }}{{ 1 is in [1] }}{{ 'a' is lower }}{{ 1 is not string }}{{ 2 is gt 1 }}{{ true is sameas true }}{{ 1 is true }}{{ [].keys is defined }}
{{ 'a'|safe + '<' }} {{ ('<' | e) ~ '<' }} {{ '<' | escape }} {{ ['a' | safe] }}
{{ "a" "b" }}{{ {'a': {'b': {}}} }}{{ {'a':1}['a']}}{{ 1_000 }} {{ 0x1F }} {{ 1e3 }} {{ 1.5e-3 }} {{ [1,2,].0 }}
{{ 1 if }}
{% if x %}
{{ x | nosuchfilter }}
{% set true = 1 %}
{{ 'abc' | length }}{{ 'äöü' | length }}{{ {'a': 1} | length }}{{ 5 | length }}
{{ -1 | abs }} {{ - 2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 1 - - 1 }} {{ not true or true }} {{ 10 - 2 - 3 }} {{ 2 + 3 ~ 4 }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% for (p, q), r in [((1, 2), 3)] %}{{ p }}{{ q }}{{ r }}{% endfor %}
{% generation %}{% set z = 1 %}g{{ z }}{% endgeneration %}{{ z is defined }}
{% for i in [1, 2] %}{% for j in [1, 2] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
a{%- if true -%}  b  {%- endif +%}   c   {{- ' d ' -}}  e
{{ namespace is callable }}
""".strip().split("\n") + [
    "  {% if true %}\n  a\n  {%- if true %}\n b\n {% endif %}\n\t{%+ endif %}\n c\n\n",
    "x {# c #}\n y\n  {# d #}\nz {#- e -#}\n w\r\n{% set a = 1 -%}\n\n  v {{ a }}\n\nu",
    "{{ 'a' }}\n{{- 'b' }}\n  {{ 'c' -}}  \n d\n{%- raw -%}\n {{ x }} \n{%- endraw %}\n e\n  {% raw %} f\n  {% endraw %}\ng",
    "\u00a0{% if true %}\u3000{%- endif %}\u00a0x\n \u00a0{% set a = 1 %}\ny",
    "{% for m in [1,\n2] %}\n  {{ m }}\n{% endfor %}\nend\n",
]


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("run"), [], [], body).set_lineno(line)

    def run(self, caller):
        return caller()


def environment():
    def raise_exception(text):
        raise jinja2.exceptions.TemplateError(text)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(layout):
        return datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime(layout)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def main():
    folder = pathlib.Path(sys.argv[1])
    env = environment()
    cases = []
    for path in sorted(folder.glob("*.jinja")):
        try:
            template = env.from_string(path.read_text(encoding="utf-8"))
        except jinja2.exceptions.TemplateError as error:
            print(f"{path.name}: jinja2 refuses it: {error}", file=sys.stderr)
            continue
        for name, (messages, extra) in CONVERSATIONS.items():
            variables = {"bos_token": "<BOS>", "eos_token": "<EOS>", **extra}
            for prompt in (False, True):
                context = {"tools": None, "documents": None, **json.loads(json.dumps(variables))}
                try:
                    expected = template.render(messages=json.loads(json.dumps(messages)), add_generation_prompt=prompt, **context)
                except Exception:  # what a template raises on a conversation that it was not made for can be anything
                    expected = None
                cases.append({"template": path.name, "conversation": name, "messages": messages, "variables": variables,
                              "add_generation_prompt": prompt, "expected": expected})
    snippets = []
    for source in SNIPPETS:
        try:
            expected = env.from_string(source).render()
        except Exception:
            expected = None
        snippets.append({"source": source, "expected": expected})
    out = folder / "goldens.json"
    out.write_text(json.dumps({"epoch": EPOCH, "snippets": snippets, "cases": cases}, ensure_ascii=True, indent=0) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases, {sum(c['expected'] is None for c in cases)} refused -> {out}")


if __name__ == "__main__":
    main()
