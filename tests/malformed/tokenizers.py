"""Model folders whose tokenizer or chat template cannot be used, or does not fit the model."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from tests.malformed import Case

_TEMPLATE, _TOKENIZER, _CONFIG = "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"
_SYSTEM = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_TWO_USERS = [{"role": "user", "content": "q"}, *_SYSTEM[1:]]


def _folder(name: str, change: Callable[[Path], Any], chat: list[dict[str, str]] | None = None) -> Case:
    """Training on a copy of the embedded model, of which something was changed."""

    def arguments(folder: Path, runs: Path) -> list[str]:
        model = folder / "model"
        with as_file(files("ladder_cli") / "assets" / "tiny") as source:
            shutil.copytree(source, model)
        change(model)
        messages = chat or [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
        rows = [{"m": [*messages[:-1], {"role": "assistant", "content": str(n)}]} for n in range(8)]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return [
            *("data=jsonl", f"data.path={folder / 'rows.jsonl'}", "data.messages=m", f"model.path={model}"),
            *("dry_run=true", "data.cache=false", f"output_dir={folder / 'out'}"),
        ]

    return Case(f"tokenizer, {name}", "train", arguments)


def _template(change: Callable[[str], str]) -> Callable[[Path], Any]:
    return lambda model: (model / _TEMPLATE).write_text(change((model / _TEMPLATE).read_text()))


def _several(model: Path) -> None:
    template = (model / _TEMPLATE).read_text()
    (model / _TEMPLATE).unlink()
    config = json.loads((model / _CONFIG).read_text())
    config["chat_template"] = [{"name": name, "template": template} for name in ("rag", "tool_use")]
    (model / _CONFIG).write_text(json.dumps(config))


def _without_tokenizer(model: Path) -> None:
    for name in (_TEMPLATE, _TOKENIZER, _CONFIG):
        (model / name).unlink()


def _word_outside(word: str, padding: bool) -> Callable[[Path], Any]:
    """A token whose number is the first beyond the embeddings."""

    def change(model: Path) -> None:
        rows = json.loads((model / "config.json").read_text())["vocab_size"]
        tokenizer = json.loads((model / _TOKENIZER).read_text())
        vocabulary = tokenizer["model"]["vocab"]
        taken = {token["id"] for token in tokenizer["added_tokens"]} | set(vocabulary.values())
        vocabulary.update({f"<filler{n}>": n for n in range(rows) if n not in taken})
        kind = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        tokenizer["added_tokens"].append({"id": rows, "content": word, "special": padding, **kind})
        (model / _TOKENIZER).write_text(json.dumps(tokenizer))
        if padding:
            config = json.loads((model / _CONFIG).read_text())
            (model / _CONFIG).write_text(json.dumps(config | {"pad_token": word}))

    return change


_REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)

CASES = [
    _folder("a template that refuses system messages", _template(lambda text: _REFUSING + text), _SYSTEM),
    _folder("a template that wants roles to alternate", _template(lambda text: _ALTERNATING + text), _TWO_USERS),
    _folder("a template that is broken", _template(lambda text: text.replace("{% endfor %}", ""))),
    _folder("a template that fails", _template(lambda text: "{{ messages[0]['content'] + 1 }}" + text)),
    _folder("a template with an unknown filter", _template(lambda text: "{{ 'a' | no_such_filter }}" + text)),
    _folder("a template that never ends", _template(lambda text: "{% for n in range(10 ** 9) %}{% endfor %}" + text)),
    _folder("several templates and no default", _several),
    _folder("no tokenizer", _without_tokenizer),
    _folder("a padding token beyond the embeddings", _word_outside("[PAD]", padding=True)),
    _folder("a word beyond the embeddings", _word_outside("1+1", padding=False)),
]
