"""A trained run, or a backbone, as a folder that vLLM reads, for as long as it is needed."""

import subprocess
import sys
import weakref
from tempfile import mkdtemp

import torch

from ladder_cli.config.choices import Dtype, ExportFormat, Quantization
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.generate.vllm_engine import local_folder
from ladder_cli.generate.vllm_processes import ServedModel
from ladder_cli.plan.out_of_memory import free_memory
from ladder_cli.serve.export import write_export
from ladder_cli.trunk.loading import planned_dtype

# Reads until the process at the other end of the pipe has closed it, or is no more.
_CARETAKER = "import shutil, sys; sys.stdin.buffer.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


class TemporaryHome:
    """A temporary folder that goes with this object, or with the process, however that ends.

    A launcher ends all processes when one fails, and a process that waits inside of vLLM or gloo hears no signal. So a
    process of its own, which no signal to the others reaches, deletes the folder.
    """

    def __init__(self) -> None:
        self.path = mkdtemp(prefix="ladder-vllm-")
        caretaker = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CARETAKER, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # With this object, and at the latest when the interpreter ends.
        weakref.finalize(self, caretaker.communicate)


def served_run(trained: TrainedRun, device: torch.device) -> ServedModel:
    """A run, exported as `ladder-export format=vllm` does it, into a temporary folder.

    Raises:
        UserError: if it cannot be served.
        RunFailed: if what was written is not what was trained.
    """
    home = TemporaryHome()
    folder = f"{home.path}/model"
    written = write_export(trained, ExportFormat.VLLM, folder, device, Dtype.AUTO)
    # vLLM takes nearly all of a card, which has to be free: of what the check has read back, too.
    free_memory()
    if written.warning is not None:
        print(f"warning: {written.warning}", file=sys.stderr)
    return ServedModel(folder, planned_dtype(trained.model, device), home)


def served_backbone(model: ModelConfig, device: torch.device) -> ServedModel:
    """A backbone where it lies.

    Raises:
        UserError: if it is to be quantised by bitsandbytes.
    """
    for option in ("quantization", "head_quantization"):
        if getattr(model, option) is not Quantization.NONE:
            raise UserError(
                f"engine=vllm does not take model.{option}={getattr(model, option)} of a backbone alone: leave it out, "
                "or engine=transformers."
            )
    return ServedModel(local_folder(model.location), planned_dtype(model, device))
