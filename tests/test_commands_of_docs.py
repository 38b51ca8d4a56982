"""Every command that the documentation shows can be typed: its options exist and go together as Hydra reads them."""

import re
import shlex
from pathlib import Path

import pytest

import ladder_cli
from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.quoting import quoted_words
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.using import ChatConfig, ExportConfig

ROOT = Path(ladder_cli.__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(
    r"^(?:    |\| .*\| `)?(ladder-(?:train|eval|chat|export)) (.+?)(?:`(?: \||$)|\s{2,}.*|\s# .*)?$", re.MULTILINE
)
SCHEMAS = {
    "ladder-train": ("train", TrainConfig),
    "ladder-eval": ("evaluate", EvaluateConfig),
    "ladder-chat": ("chat", ChatConfig),
    "ladder-export": ("export", ExportConfig),
}
# What stands for something that a reader fills in: a choice of a group, or a value of a closed set.
CHOICES = re.compile(r"^(model|method|data|experiment)=([A-Z]+)$")


def commands():
    for page in PAGES:
        for command, words in COMMAND.findall(page.read_text().replace("\\\n", " ")):
            # The form of a command, an example that goes on, and a help line are no commands.
            if not re.search(r"\[group=|\[key=|\.\.\.|\||--|=\[\[|<", words):
                yield page.name, command, words


FOUND = list(dict.fromkeys((command, words) for _, command, words in commands()))


def test_they_are_found():
    assert len(FOUND) > 45
    assert ("ladder-train", "-m method=ladder,xladder,suffix,qlora seed=0,1,2 data=s1k model=qwen2.5-0.5b") in FOUND


@pytest.mark.parametrize(("command", "text"), FOUND, ids=[" ".join(each)[:90] for each in FOUND])
def test_it_can_be_typed(command, text, monkeypatch):
    config_name, schema = SCHEMAS[command]
    words = [word.strip("[]") if re.fullmatch(r"\[\w+=[^\]]*\]", word) else word for word in shlex.split(text)]
    sweep = "-m" in words
    words = [word for word in words if word != "-m" and not CHOICES.match(word) and not word.startswith("hydra")]
    if sweep:
        # The first run of it.
        words = [re.sub(r"=([^,\[\"']+),.*", r"=\1", word) for word in words]
    composed(config_name, schema, quoted_words(words, schema, sweep=False))
