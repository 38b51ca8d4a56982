"""Whatever the documentation points at exists: paths, modules, names, links and their headings."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ladder_cli

ROOT = Path(ladder_cli.__file__).parent.parent
PACKAGE = ROOT / "ladder_cli"
# docs/decisions/ is history: its pages name what stood there when they were written.
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMENTED = [*DOCS, ROOT / "Makefile", *sorted((ROOT / "conf").rglob("*.yaml"))]
ROOMS = "|".join(sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()))

FULL_PATH = re.compile(r"(?<![\w./-])(?:ladder_cli|paper|scripts|tests|conf|docs)/[\w<>*{},./-]*")
ROOM_PATH = re.compile(rf"`((?:{ROOMS})/[\w<>*/.-]+)`")
FILE = re.compile(r"`(\w+\.py)`")
DOTTED = re.compile(r"(?<![\w./-])(?:ladder_cli|paper)(?:\.[A-Za-z_]\w*)+(?![\w-])")
IMPORTED = re.compile(r"^from ladder_cli import (.+?)(?:\s*#.*)?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
# NAME.yaml, tests/<room>/: what a reader fills in.
PLACEHOLDER = re.compile(r"[<>{}*]|\b[A-Z]{2,}\b")


def named(path: Path) -> str:
    return f"{path.relative_to(ROOT)}"


def full_paths(text: str) -> Iterator[str]:
    for match in FULL_PATH.finditer(text):
        yield match.group().rstrip(".,")


def is_there(path: str) -> bool:
    """Whether a path exists; a decision may go by its number alone."""
    return (ROOT / path).exists() or any(ROOT.glob(f"{path}-*.md"))


@pytest.mark.parametrize("page", COMMENTED, ids=named)
def test_every_path_exists(page):
    text = page.read_text()
    missing = [path for path in full_paths(text) if not PLACEHOLDER.search(path) and not is_there(path)]
    missing += [
        path for path in ROOM_PATH.findall(text) if not PLACEHOLDER.search(path) and not (PACKAGE / path).exists()
    ]
    assert missing == []


@cache
def source_files() -> frozenset[str]:
    folders = ("ladder_cli", "paper", "scripts", "tests", "conf")
    return frozenset(path.name for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_every_file_that_is_called_by_its_name_alone_exists(page):
    assert [name for name in FILE.findall(page.read_text()) if name not in source_files()] == []


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if not module.is_file():
            continue
        rest = parts[length:]
        return not rest or (len(rest) == 1 and rest[0] in names_in(module))
    return False


def names_in(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case ast.ImportFrom() | ast.Import():
                found |= {alias.asname or alias.name for alias in node.names}
    return found


def dotted_names(text: str) -> list[str]:
    return [name for name in DOTTED.findall(text) if not name.endswith((".md", ".html"))]


@pytest.mark.parametrize("page", COMMENTED, ids=named)
def test_every_dotted_name_exists(page):
    assert [name for name in dotted_names(page.read_text()) if not exists(name)] == []


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_every_name_that_examples_import_is_public(page):
    names = [name.strip() for group in IMPORTED.findall(page.read_text()) for name in group.split(",")]
    assert [name for name in names if name not in ladder_cli.__all__] == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_every_link_resolves(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_checks_see_what_is_missing():
    text = "`nn/never.py`, `never.py`, ladder_cli/never.py, ladder_cli.nn.never, paper.tables.build_tables, paper.md"
    assert [path for path in full_paths(text) if not is_there(path)] == ["ladder_cli/never.py"]
    assert ROOM_PATH.findall(text) == ["nn/never.py"]
    assert FILE.findall(text) == ["never.py"]
    assert [(name, exists(name)) for name in dotted_names(text)] == [
        ("ladder_cli.nn.never", False),
        ("paper.tables.build_tables", True),
    ]
