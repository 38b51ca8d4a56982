"""Fill a local mirror on a machine with a network, for compute nodes without one.

    python scripts/prefetch.py --data-dir MIRROR                         every data set and benchmark of conf/
    python scripts/prefetch.py --data-dir MIRROR --only s1k --only math500
    python scripts/prefetch.py --models-dir MODELS --model qwen2.5-math-1.5b

Data goes to MIRROR/<name>/<split>.parquet (then `data_dir=MIRROR`), a model to MODELS/<name> (then
`model.path=MODELS/<name>`). Existing files stay.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ladder_cli.config.catalogue import choices, declared
from ladder_cli.config.validation import suggest
from ladder_cli.data.sources import load_rows
from ladder_cli.errors import UserError


def fetch_set(values: dict[str, Any], split: str, mirror: Path) -> str:
    """Download one split of a set into the mirror; returns what happened."""
    target = mirror / values["name"] / f"{split}.parquet"
    if target.is_file() or target.with_suffix(".jsonl").is_file():
        return "already there"
    rows = load_rows(values["name"], split, values["hub_id"], values.get("hub_config"), None)
    import pyarrow
    from pyarrow.parquet import write_table

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    write_table(pyarrow.Table.from_pylist(rows), temporary)
    os.replace(temporary, target)
    return f"{len(rows):,} rows"


def fetch_model(values: dict[str, Any], folder: Path) -> str:
    """Download a model into a folder of its own."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            values["hub_id"],
            revision=values.get("revision"),
            local_dir=folder / values["name"],
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
        )
    except Exception as error:  # the hub's client raises whatever its transport does
        raise UserError(f"cannot download '{values['hub_id']}': {' '.join(str(error).split())[:200]}") from error
    return "ready"


def sets() -> list[tuple[str, dict[str, Any]]]:
    """Name and declaration of the data sets and benchmarks that have a home on the hub; some names are both."""
    found = [(name, declared(group, name)) for group in ("data", "benchmark") for name in choices(group)]
    return [(name, values) for name, values in found if values.get("hub_id")]


def _refuse(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a line about a name that is none, or an option that nothing reads."""
    if bool(args.models_dir) != bool(args.model):
        parser.error("give --models-dir and --model together: where to, and what")
    if args.only and args.data_dir is None:
        parser.error("--only names data sets and benchmarks for --data-dir, which is not given")
    if args.data_dir is None and not args.model:
        parser.error("give --data-dir, or --models-dir with --model, or both")
    on_hub = [name for name in choices("model") if declared("model", name).get("hub_id")]
    for option, given, known in (("--only", args.only, [name for name, _ in sets()]), ("--model", args.model, on_hub)):
        for name in given:
            if name not in known:
                parser.error(f"{option}: nothing on the hub is '{name}' here.{suggest(name, known)}")


def main() -> int:
    """Fetch and report; continue after failures. The exit status says whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", action="append", default=[], help="a data set or benchmark; may be repeated")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--model", action="append", default=[], help="a model of conf/model; may be repeated")
    args = parser.parse_args()
    _refuse(parser, args)
    jobs: list[tuple[str, Any]] = []
    if args.data_dir is not None:
        wanted = {
            (values["name"], values.get("split", "train")): values
            for name, values in sets()
            if not args.only or name in args.only
        }
        for (name, split), values in wanted.items():
            jobs.append((f"{name} ({split})", lambda v=values, s=split: fetch_set(v, s, args.data_dir)))
    for name in args.model:
        jobs.append((name, lambda n=name: fetch_model(declared("model", n), args.models_dir)))
    failed = 0
    for name, job in jobs:
        try:
            print(f"{name}: {job()}", flush=True)
        except UserError as error:
            failed += 1
            print(f"{name}: FAILED, {error}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
