"""One HTML file that shows evaluations to anybody with a browser: no network, no scripts or fonts from outside.

What models have written is not to be trusted. It stands in the page as JSON in ASCII without `<`, is put on the screen
as text alone, and a Content-Security-Policy allows no script and no style but the page's own, and nothing to be loaded.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import OUTPUTS
from ladder_cli.errors import UserError
from ladder_cli.report.content import content
from ladder_cli.report.folders import read_folders
from ladder_cli.run.directory import safe_name
from ladder_cli.run.files import write_text

_ASSETS = files("ladder_cli.report") / "assets"
_SCRIPTS = ("text.js", "figures.js", "tables.js", "browser.js")
_MARK = '<meta name="generator" content="ladder-cli report">'


def write_report(config: EvaluateConfig, console: Console) -> Path:
    """Read what `report` names and write the page.

    Returns:
        The file.

    Raises:
        UserError: if a folder is missing, unfinished or damaged, or `output` holds something else than a report.
    """
    assert config.report is not None
    path = Path(config.output) if config.output is not None else default_output(config.report)
    _refuse_other_file(path)
    folders, left_out = read_folders(config.report)
    write_text(path, page(content(folders, left_out)))
    for line in left_out:
        console.print(f"left out: {line}", soft_wrap=True)
    samples = sum(len(repeat) for each in folders for found in each.evaluations.values() for repeat in found.repeats)
    console.print(
        f"{path}: {len(folders)} {'folder' if len(folders) == 1 else 'folders'}, {samples:,} samples, "
        f"{path.stat().st_size / 1e6:.1f} MB; open it in a browser",
        soft_wrap=True,
        highlight=False,
    )
    return path


def default_output(report: Sequence[str]) -> Path:
    """Where the page goes that was given no other place."""
    named = "-".join(Path(pattern).name for pattern in report)
    return OUTPUTS / f"{safe_name(f'report-{named}')}.html"


def page(values: dict[str, Any]) -> str:
    """The HTML of a report.

    Args:
        values: as `content` gives them.
    """
    script = "(() => {\n'use strict';\n" + "".join(_read(name) for name in _SCRIPTS) + "})();\n"
    style = _read("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # In ASCII: neither a lone surrogate nor a sign that turns the direction of writing stands in the file.
    data = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    filled = _read("page.html")
    for name, text in (("mark", _MARK), ("policy", policy), ("style", style), ("script", script), ("data", data)):
        # The data come last: nothing is looked for in them.
        filled = filled.replace(f"{{{{{name}}}}}", text, 1)
    return filled


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a Content-Security-Policy names what it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _refuse_other_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"output={path} is a folder: give the name of a file, output={path / 'report.html'}.")
    if path.is_file():
        with path.open("rb") as file:
            if _MARK.encode() not in file.read(4096):
                raise UserError(f"output={path} exists and is no report: nothing is written over; name another.")
