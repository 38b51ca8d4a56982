"""The rooms of the house: who may import whom, and who may name a method."""

import ast
from pathlib import Path

import ladder_cli

PACKAGE = Path(ladder_cli.__file__).parent
# A later room may import an earlier one, never the reverse.
ORDER = [
    "errors",
    "validation",
    "files",
    "credentials",
    "claim",
    "streams",
    "ranks",
    "hub",
    "quoting",
    "method_config",
    "config",
    "identity",
    "unread",
    "run_dir",
    "sweep",
    "cli",
    "console",
    "models",
    "nn",
    "data",
    "analysis",
    "training",
    "evaluation",
]
WITHOUT_TORCH = [
    *("errors", "validation", "files", "credentials", "claim"),
    *(
        "streams",
        "hub",
        "quoting",
        "ranks",
        "method_config",
        "config",
        "identity",
        "unread",
        "cli",
        "run_dir",
        "sweep",
        "train",
        "evaluate",
        "console",
    ),
]


def modules():
    return [path for path in PACKAGE.rglob("*.py") if "assets" not in path.parts]


# Rooms that stand beside one that has its place in the order.
BESIDE = {"trunk": "models", "methods": "models"}


def room_of(dotted: str) -> str:
    room = dotted.split(".")[1] if "." in dotted else ""
    return BESIDE.get(room, room)


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
    wrong = []
    for path in modules():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        room = BESIDE.get(room, room)
        if room not in ORDER:
            continue
        for name in imports(path):
            target = room_of(name)
            if name.startswith("ladder_cli.") and target in ORDER and ORDER.index(target) > ORDER.index(room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_every_room_has_a_place_in_the_order():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert rooms - {"__init__", "train", "evaluate"} - set(BESIDE) == set(ORDER)


def test_what_answers_before_torch_is_loaded_imports_none_of_it():
    heavy = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "accelerate"}
    for room in WITHOUT_TORCH:
        loaded = {name.split(".")[0] for name in imports(PACKAGE / f"{room}.py", top_level_only=True)}
        assert not loaded & heavy, room


def test_no_module_outside_models_names_a_method():
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        if parts[0] in ("models", "methods", "method_config.py"):
            continue
        literals = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not literals & {"ladder", "xladder", "qlora"}, path


def test_unpickling_is_nowhere():
    for path in modules():
        assert "torch.load" not in path.read_text(), path
