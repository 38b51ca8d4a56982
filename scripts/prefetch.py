"""Fill a local mirror on a machine with a network, for compute nodes without one.

    python scripts/prefetch.py --data-dir MIRROR                         every data set and benchmark of conf/
    python scripts/prefetch.py --data-dir MIRROR --only s1k --only math500
    python scripts/prefetch.py --models-dir MODELS --model qwen2.5-math-1.5b

Data goes to MIRROR/<name>/<split>.parquet (then `data_dir=MIRROR`), a model to MODELS/<name> (then
`model.path=MODELS/<name>`). Existing files stay.
"""

import argparse
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ladder_cli.config.catalogue import CONFIG_MODULE, choices
from ladder_cli.data.sources import load_rows
from ladder_cli.errors import UserError


def settings(group: str, name: str) -> dict[str, Any]:
    """Read the file of a choice, with what it inherits from others of its group."""
    values: Any = OmegaConf.to_container(OmegaConf.load(str(files(CONFIG_MODULE) / group / f"{name}.yaml")))
    for base in values.pop("defaults", []):
        values = settings(group, base) | values
    return values


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


def main() -> int:
    """Fetch and report; continue after failures. The exit status says whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", action="append", default=[], help="a data set or benchmark; may be repeated")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--model", action="append", default=[], help="a model of conf/model; may be repeated")
    args = parser.parse_args()
    if args.data_dir is None and not (args.models_dir and args.model):
        parser.error("give --data-dir, or --models-dir with --model, or both")
    jobs: list[tuple[str, Any]] = []
    if args.data_dir is not None:
        wanted = {
            (values["name"], values.get("split", "train")): values
            for group in ("data", "benchmark")
            for name in choices(group)
            if (values := settings(group, name)).get("hub_id") and (not args.only or name in args.only)
        }
        for (name, split), values in wanted.items():
            jobs.append((f"{name} ({split})", lambda v=values, s=split: fetch_set(v, s, args.data_dir)))
    for name in args.model:
        values = settings("model", name)
        jobs.append((name, lambda v=values: fetch_model(v, args.models_dir)))
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
