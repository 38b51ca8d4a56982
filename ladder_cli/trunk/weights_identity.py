"""Identifies a backbone's weights by content: a digest over every tensor, in whatever file or folder it lies.

The digest is taken tensor by tensor (name, type, shape, bytes), so the same weights in other shards or in another
folder have the same identity. The architecture enters the digest too. Digests of files are cached in the user's cache
folder, so that a second call reads no weights. Importing this module imports no torch.
"""

import contextlib
import hashlib
import json
import mmap
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ladder_cli.errors import NotReachable, UserError
from ladder_cli.run.files import write_text

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_LARGEST_HEADER = 100 * 2**20  # bytes; what the safetensors library allows
# A file that is younger than this may be written again without a change of its times.
_SETTLED_SECONDS = 2.0
_THREADS = min(4, os.cpu_count() or 1)


def weights_identity(location: str, revision: str | None = None) -> str:
    """Return the identity of the weights that `from_pretrained(location, revision)` loads: 16 hexadecimal digits.

    Args:
        location: a model folder, or a repository on the hub. Files of a repository that the
            cache lacks are downloaded; loading the model would download the same ones.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: if the folder has no safetensors weights, or one of its files is missing or damaged; `NotReachable`
            if they are on the hub and it does not answer.
    """
    return _identity(weights_files(location, revision))


def local_weights_identity(location: str, revision: str | None = None) -> str | None:
    """Return `weights_identity` if the weights are on this machine, else None; download nothing.

    Raises:
        UserError: as `weights_identity`, for weights on this machine.
    """
    try:
        files = weights_files(location, revision, download=False)
    except NotReachable:
        return None
    return _identity(files)


def weights_files(location: str, revision: str | None = None, download: bool = True) -> list[Path]:
    """Return the paths of `config.json` and of the weight files, in the order of the index.

    Args:
        download: fetch missing files from the hub; otherwise only the cache is searched.

    Raises:
        UserError: if a folder or repository has no safetensors weights; `NotReachable` if the hub does not answer.
    """

    def part(name: str) -> Path | None:
        if Path(location).is_dir():
            return Path(location) / name if (Path(location) / name).is_file() else None
        return _from_hub(location, name, revision, download)

    config = part(CONFIG_FILE)
    if config is None:
        raise UserError(f"{location} is not a model folder: it has no {CONFIG_FILE}.")
    if (single := part(SINGLE_FILE)) is not None:
        return [config, single]
    index = part(INDEX_FILE)
    if index is None:
        raise UserError(
            f"{location} has no weights in safetensors ({SINGLE_FILE} or {INDEX_FILE}), and nothing else is read: save "
            "it with save_pretrained of a recent Transformers."
        )
    files = [config]
    for name in shards_of(index):
        shard = part(name)
        if shard is None:
            raise UserError(f"{location}: {name} is missing, which {INDEX_FILE} names: restore it.")
        files.append(shard)
    return files


def shards_of(index: Path) -> list[str]:
    """Return the file names in an index, each once, in its order.

    Raises:
        UserError: if the index cannot be read, or a name leads out of the folder.
    """
    try:
        names = list(dict.fromkeys(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read as an index of weights ({error}).") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{index} names a shard outside of its folder: {name!r}.")
    return names


def tensor_digests(path: Path) -> dict[str, str]:
    """Return `type shape SHA-256` of each tensor in a safetensors file, by name, from the cache if it is there.

    Raises:
        UserError: if the file is no safetensors file, or is cut off.
    """
    key = _key(path)
    kept = _cache_file(path)
    with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        cached = json.loads(kept.read_text(encoding="utf-8"))
        if cached["key"] == key and all(isinstance(digest, str) for digest in cached["tensors"].values()):
            return dict(cached["tensors"])
    digests = dict(_read_digests(path))
    # A cache that cannot be written costs time, never a run. A file that is too young may still change unnoticed.
    if _key(path) == key and time.time() - path.stat().st_mtime > _SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            write_text(kept, json.dumps({"key": key, "tensors": digests}))
    return digests


def same_tensors(one: list[Path], other: list[Path]) -> bool:
    """Return whether two models, as lists of `weights_files`, have the same tensors."""
    return _tensors(one) == _tensors(other)


def _identity(files: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps(_architecture(files[0]), sort_keys=True).encode())
    for line in _tensors(files):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _tensors(files: list[Path]) -> list[str]:
    return sorted(f"{name} {text}\n" for path in files[1:] for name, text in tensor_digests(path).items())


def _architecture(config: Path) -> Any:
    """Return what a config.json says of the computation, with Transformers' defaults for what it leaves out.

    Another version of Transformers saves the same model with other keys.
    """
    from transformers import AutoConfig

    from ladder_cli.trunk.loading import identity

    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        model_type = values["model_type"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{config} cannot be read as the config of a model ({error}).") from error
    try:
        return identity(AutoConfig.from_pretrained(config.parent, trust_remote_code=False))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError):
        # A model with its own code, or unknown here: take the file as it is.
        return [model_type, values]


def _read_digests(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header_end, header = _header(path, content)
            spans = [(name, entry, *entry["data_offsets"]) for name, entry in header.items()]
            if any(not 0 <= start <= end <= len(content) - header_end for _, _, start, end in spans):
                raise UserError(f"{path} is cut off: its header names more bytes than it has.")
            spans.sort(key=lambda span: span[2])
            view = memoryview(content)

            def of(span: tuple[str, dict[str, Any], int, int]) -> tuple[str, str]:
                name, entry, start, end = span
                # A view of its own, so that the mapping can be closed.
                with view[header_end + start : header_end + end] as tensor:
                    return name, f"{entry['dtype']} {list(entry['shape'])} {hashlib.sha256(tensor).hexdigest()}"

            try:
                with ThreadPoolExecutor(_THREADS) as pool:
                    yield from list(pool.map(of, spans))
            finally:
                view.release()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from error


def _header(path: Path, content: mmap.mmap) -> tuple[int, dict[str, Any]]:
    """Return where the header of a safetensors file ends, and its entry for each tensor."""
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= min(_LARGEST_HEADER, len(content) - 8):
        raise UserError(f"{path} is damaged or no safetensors file (its header has no size that could be).")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    return 8 + size, header


def _from_hub(repository: str, name: str, revision: str | None, download: bool) -> Path | None:
    """Return a file of a repository, from the cache if it is there; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None:
            return None  # the cache knows that there is none
        if not download:
            if name == SINGLE_FILE and isinstance(
                try_to_load_from_cache(repository, INDEX_FILE, revision=revision), str
            ):
                return None
            raise NotReachable(f"{name} of '{repository}' is not in the cache of the hub.")
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise _out_of_reach(repository, name, error) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _out_of_reach(repository, name, error) from error


def _out_of_reach(repository: str, name: str, error: Exception) -> NotReachable:
    reason = " ".join(str(error).split())[:200]
    return NotReachable(f"cannot load {name} of '{repository}' from the hub (or its cache): {reason}")


def _key(path: Path) -> list[Any]:
    """Return what changes when a file changes, without reading it."""
    resolved = path.resolve()
    status = resolved.stat()
    return [str(resolved), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _cache_file(path: Path) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return Path(home) / "ladder-cli" / "weights" / f"{name}.json"
