"""The right to write into a folder, held by one process at a time. Imports no torch.

The lock is the kernel's, on an open file: it goes with its process, however that ends, and a lock file that was left
behind means nothing. It is a POSIX record lock, which network file systems keep across machines and forked children
(data loader workers) do not inherit.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ladder_cli.errors import UserError

LOCK_FILE = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
# The file system knows no locks; the user is on his own there, as docs/robustness.md says.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def claimed(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the only right to write into `folder`, which is made if need be.

    Args:
        wait: until another process lets it go, instead of raising.

    Raises:
        UserError: if another process holds it; the message names that process. Or if it cannot be a folder.
    """
    descriptor = _lock(folder, wait)
    try:
        yield
    finally:
        _leave(folder, descriptor)
        os.close(descriptor)


def _leave(folder: Path, descriptor: int) -> None:
    """Take the lock file away, and with it a folder into which nothing was written."""
    with contextlib.suppress(OSError):
        if (folder / LOCK_FILE).stat().st_ino == os.fstat(descriptor).st_ino:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()


def _lock(folder: Path, wait: bool) -> int:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise UserError(
                f"{folder} cannot be made a folder ({error.strerror}): it or something above it is a file, or no place "
                "for files. Give another output_dir."
            ) from error
        path = folder / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The folder may have been set aside, lock file and all, between opening and locking.
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
