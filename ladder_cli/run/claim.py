"""Locks a folder, so that one process at a time writes into it. Imports no torch.

The lock is the kernel's, on an open file. It ends with its process, however that ends, so a lock file that was left
behind locks nothing. It is a POSIX record lock: network file systems honour it across machines, and forked children
(data loader workers) do not inherit it. On Windows, which has no such locks, it is filelock's.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ladder_cli.errors import UserError

LOCK_FILE = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
# The file system has no locks: unsupported, see docs/robustness.md.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def claimed(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock `folder` for this process; make the folder if it does not exist.

    Args:
        wait: wait for another process to release it, instead of raising.

    Raises:
        UserError: if another process holds the lock (the message names it), or if the folder cannot be made.
    """
    if sys.platform == "win32":
        with _claimed_portably(folder, wait):
            yield
        return
    descriptor = _lock(folder, wait)
    try:
        yield
    finally:
        _leave(folder, descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def _claimed_portably(folder: Path, wait: bool) -> Iterator[None]:
    """The same where there are no POSIX locks: by filelock, which does not say who the holder is."""
    from filelock import FileLock, Timeout

    _make(folder)
    lock = FileLock(folder / LOCK_FILE, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{folder} is being written by another process: wait for it, or give another output_dir."
        ) from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise UserError(
            f"{folder} cannot be made a folder ({error.strerror}): it or something above it is a file, or no place "
            "for files. Give another output_dir."
        ) from error


def _leave(folder: Path, descriptor: int) -> None:
    """Delete the lock file, and the folder too if nothing else is in it."""
    with contextlib.suppress(OSError):
        if (folder / LOCK_FILE).stat().st_ino == os.fstat(descriptor).st_ino:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()


def _lock(folder: Path, wait: bool) -> int:
    import fcntl

    while True:
        _make(folder)
        path = folder / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The folder may have been renamed, with its lock file, between opening and locking.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            os.close(descriptor)
            if error.errno not in _TAKEN:
                raise
            holder = path.read_text(errors="replace").strip()[:100] or "another process"
            raise UserError(
                f"{folder} is being written by {holder}: wait for it, or give another output_dir."
            ) from error
        os.close(descriptor)
