"""The rooms of the house: who may import whom, and who may name a method."""

import ast
from pathlib import Path

import ladder_cli

PACKAGE = Path(ladder_cli.__file__).parent
# A later room may import an earlier one, never the reverse.
ORDER = [
    "errors",
    "validation",
    "choices",
    "options",
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
    "compose",
    "sweep",
    "cli",
    "console",
    "models",
    "nn",
    "data",
    "analysis",
    "training",
    "generate",
    "evaluation",
]
WITHOUT_TORCH = [
    *("errors", "validation", "choices", "options", "files", "credentials", "claim"),
    *(
        "streams",
        "hub",
        "quoting",
        "ranks",
        "method_config",
        "config",
        "identity",
        "unread",
        "compose",
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
    if dotted == "ladder_cli.generate.decoding":
        return "generate"  # where it belongs, and will lie
    return dotted.split(".")[1] if "." in dotted else ""


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
        inside = path.relative_to(PACKAGE).with_suffix("").parts
        room = room_of(".".join(("ladder_cli", *inside)))
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


def test_evaluation_asks_an_engine_and_touches_no_model():
    for path in (PACKAGE / "evaluation").glob("*.py"):
        if path.name == "decoding.py":  # belongs to generate
            continue
        names = set(imports(path))
        assert not {name for name in names if name.split(".")[0] in ("torch", "peft")}, path
        models = {name for name in names if name.startswith("ladder_cli.nn")}
        assert models <= {"ladder_cli.nn.adapter", "ladder_cli.trunk.loading", "ladder_cli.trunk.naming"}, path


def test_unpickling_is_nowhere():
    for path in modules():
        assert "torch.load" not in path.read_text(), path


def test_only_the_commands_know_the_edge_and_only_composing_knows_hydra():
    """Hydra, beside `compose` and `quoting`, is known to `sweep`, which runs inside of a job of Hydra's."""
    for path in modules():
        name = path.relative_to(PACKAGE).as_posix().removesuffix(".py")
        imported = set(imports(path))
        assert "ladder_cli.cli" not in imported or name in ("train", "evaluate"), path
        hydra = any(other.split(".")[0] == "hydra" for other in imported)
        assert not hydra or name in ("compose", "quoting", "sweep"), path
