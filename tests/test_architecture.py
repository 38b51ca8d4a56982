"""The rooms of the house: who may import whom, who may name a method, and what every part of the house must not do."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import ladder_cli

PACKAGE = Path(ladder_cli.__file__).parent
ROOT = PACKAGE.parent
HEAVY = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "accelerate"}


def rooms() -> dict[str, bool]:
    """The table of CONTRIBUTING.md: rooms from the top down, and whether they may import torch."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| room |") : text.index("`paper/` is a second package")]
    return {name: torch == "yes" for name, torch in re.findall(r"^\| (\w+) \|.*\| (yes|no) \|$", table, re.MULTILINE)}


def modules(root: Path = PACKAGE) -> list[Path]:
    return [path for path in root.rglob("*.py") if "assets" not in path.parts]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool = False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "ladder_cli":
                yield from (f"ladder_cli.{alias.name}" for alias in node.names)


def test_no_room_imports_a_later_one():
    order = list(rooms())
    wrong = []
    for path in modules():
        if room(path) == "__init__" or path.name == "__main__.py":  # a door into the commands
            continue
        for name in imports(path):
            target = name.split(".")[1] if name.startswith("ladder_cli.") else ""
            if target in order and order.index(target) > order.index(room(path)):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_every_room_stands_in_the_table():
    assert {room(path) for path in modules()} - {"__init__"} == set(rooms())


@pytest.mark.parametrize("name", [name for name, torch in rooms().items() if not torch])
def test_what_answers_before_torch_is_loaded_imports_none_of_it(name):
    files = [path for path in modules() if room(path) == name]
    assert files
    for path in files:
        assert not {each.split(".")[0] for each in imports(path, top_level_only=True)} & HEAVY, path


def test_the_library_never_imports_the_paper():
    assert [path for path in modules() if any(name.split(".")[0] == "paper" for name in imports(path))] == []


def test_only_config_and_the_edge_know_hydra():
    knowing = {
        f"{path.relative_to(PACKAGE)}" for path in modules() if {"hydra"} & {n.split(".")[0] for n in imports(path)}
    }
    assert {name.split("/")[0] for name in knowing} <= {"config", "cli", "run"}, knowing


def test_no_module_outside_its_room_names_a_method():
    for path in modules():
        if room(path) in ("methods", "nn") or path.name == "methods.py":
            continue
        literals = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not literals & {"ladder", "xladder", "qlora", "suffix"}, path


def test_unpickling_is_nowhere():
    for path in modules():
        assert "torch.load" not in path.read_text(), path


def test_the_library_mocks_nothing():
    for path in modules():
        assert not any(name.startswith("unittest") for name in imports(path)), path


def test_every_package_is_in_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    code = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    conf = {".".join(("ladder_cli", *path.parent.relative_to(ROOT).parts)) for path in (ROOT / "conf").rglob("*.yaml")}
    assert code | conf <= listed
