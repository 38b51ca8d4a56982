"""Hooks of mkdocs.yml: pages that stand elsewhere in the repository, and links from docs/ to files outside of it.

The front page of the site is README.md, the rules are CONTRIBUTING.md, and decisions/ gets an index; each stands once.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!\.\.)[^)]*\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for path, text in (
        ("index.md", front_page()),
        ("contributing.md", contributing()),
        ("decisions/index.md", index()),
    ):
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to code are text on the site: the repository has it."""
    if page.file.src_uri.startswith("decisions/") and page.file.src_uri != "decisions/index.md":
        return re.sub(r"\[([^\]]+)\]\(\.\./\.\./[^)]*\)", r"`\1`", markdown)
    return _OUTSIDE.sub(r"`\1`", markdown) if "/" not in page.file.src_uri else markdown


def front_page() -> str:
    """README.md with its links as they are from docs/."""
    text = (ROOT / "README.md").read_text()
    return text.replace("](docs/decisions/)", "](decisions/index.md)").replace("](docs/", "](").replace(
        "](CONTRIBUTING.md)", "](contributing.md)"
    )  # fmt: skip


def contributing() -> str:
    """CONTRIBUTING.md likewise."""
    return (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")


def index() -> str:
    """A list of the decisions by their titles."""
    lines = ["# Decisions", "", "What cost thought, and what would change it.", ""]
    for page in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines) + "\n"
