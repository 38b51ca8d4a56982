"""llama.cpp's own converter, started on a merged model. It is no dependency: whoever wants GGUF has llama.cpp."""

import shutil
import subprocess
import sys
from pathlib import Path

from ladder_cli.errors import RunFailed, UserError

_CONVERTER = "convert_hf_to_gguf.py"


def find_converter(named: str | None) -> Path:
    """The converter script, before any weight is read.

    Args:
        named: by the user; None searches the PATH.

    Raises:
        UserError: if there is none, saying where to get it.
    """
    found = named if named is not None else shutil.which(_CONVERTER)
    if found is None or not Path(found).is_file():
        where = f"converter={named} is no file" if named is not None else f"{_CONVERTER} is not on the PATH"
        raise UserError(
            f"format=gguf needs llama.cpp's converter, and {where}: give converter=LLAMA_CPP/{_CONVERTER} "
            "(and pip install gguf), or export with format=merged and convert that."
        )
    return Path(found)


def convert(converter: Path, model: Path, target: Path) -> None:
    """Convert a model folder into one file.

    Args:
        converter: a Python script with llama.cpp's arguments, or a program that takes them.
        model: an ordinary model folder.
        target: the file.

    Raises:
        RunFailed: if the converter fails, with the end of what it said.
    """
    # A wrapper that is no Python script may start an environment of its own.
    started = [sys.executable, str(converter)] if converter.suffix == ".py" else [str(converter.resolve())]
    command = [*started, str(model), "--outfile", str(target), "--outtype", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not target.is_file():
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise RunFailed(f"{converter.name} could not convert the merged model (exit status {done.returncode}): {said}")
