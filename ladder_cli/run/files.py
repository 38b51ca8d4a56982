"""Files and folders that are written whole or not at all, and checksums that tell later damage. Imports no torch."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ladder_cli.errors import UserError

SUMS = "SHA256SUMS"
_TEMPORARY = re.compile(r"(\.[0-9a-f]{8})?\.tmp$")
# What a user can mend: no space, quota, file size limit, read-only, no permission.
_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
# As safetensors and torch.save word the same, in exceptions of their own.
_MENDABLE_WORDS = ("no space left", "file too large", "quota exceeded", "read-only file system", "unexpected pos")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, flush to disk, rename.

    The temporary name is the writer's own, so that of several writers at a time each writes a whole file and the last
    one's stays. A kill may leave `<name>.<8 digits>.tmp` behind (`temporary_for`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def temporary_for(name: str) -> str:
    """The file that a temporary name stands for; any other name is given back as it is.

    `<name>.tmp` is how adapters' weights are written, and how earlier versions wrote every file.
    """
    return _TEMPORARY.sub("", name)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk; Windows opens no folder."""
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder, and need not.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def seal(folder: Path) -> None:
    """Write the checksum of every file into `SHA256SUMS` (as `sha256sum` does) and flush the folder to disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    for path in files:
        sync(path)
    write_text(folder / SUMS, "".join(lines))


class Damaged(Exception):
    """A sealed folder is not as it was written; the message says what is wrong."""


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or None if every file is as it was written."""
    try:
        verified(folder)
    except Damaged as error:
        return str(error)
    return None


def verified(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a sealed folder, by its name within, after reading each once.

    Raises:
        Damaged: if a file is not as it was written, or the checksums cannot be read.
    """
    digests: dict[str, str] = {}
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        for line in lines:
            digest, _, name = line.partition("  ")
            # A name that leads out of the folder is not one that `seal` wrote.
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise Damaged(f"{SUMS} cannot be read")
            if sha256(folder / name) != digest:
                raise Damaged(f"{name} is not as it was written")
            digests[name] = digest
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename).name} is missing") from error
    except (OSError, ValueError) as error:
        raise Damaged(f"{SUMS} cannot be read ({error})") from error
    if not lines:
        raise Damaged(f"{SUMS} is empty")
    return digests


def move_into_place(staged: Path, target: Path) -> None:
    """Rename a finished folder to its place; what stood there is deleted after that."""
    discarded = target.with_name(f".discarded-{target.name}")
    remove_folder(discarded)
    if target.exists():
        os.rename(target, discarded)
    os.rename(staged, target)
    sync(target.parent)
    remove_folder(discarded)


def refuse_full_folder(path: Path) -> None:
    """Refuse to write over anything.

    Raises:
        UserError: if the folder exists and is not empty, or is no folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"output={path} exists and is not an empty folder: nothing is written over; name another.")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` to fill, which gets its name when nothing was raised, and is deleted otherwise."""
    staged = output.with_name(f".{output.name}.partial")
    remove_folder(staged)
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in staged.rglob("*"):
            if path.is_file():
                # safetensors writes for the owner alone; a served model is read by others.
                path.chmod(0o666 & ~_umask())
            sync(path)
        refuse_full_folder(output)
        # Onto an empty folder this is allowed, and onto a full one it fails.
        os.rename(staged, output)
        sync(output.parent)
    except BaseException:
        remove_folder(staged)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def remove_folder(folder: Path) -> None:
    """Delete a folder under another name first, so that a kill halfway leaves no half of it under its own."""
    if not folder.is_dir():
        return
    doomed = folder
    if not folder.name.startswith(".discarded-"):
        doomed = folder.with_name(f".discarded-{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def write_failure(error: BaseException) -> str | None:
    """One line for an error that says that something could not be written; None for any other error.

    Libraries below (safetensors, torch) raise exceptions of their own, known by their words alone.
    """
    if isinstance(error, OSError) and error.errno in _MENDABLE:
        return f"cannot write {error.filename or 'to disk'}: {error.strerror}"
    text = " ".join(str(error).split())
    if any(word in text.lower() for word in _MENDABLE_WORDS):
        return f"cannot write to disk: {text[:160]}"
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
