"""A trained run, or a backbone, as a folder that vLLM reads, for as long as it is needed."""

import sys
from tempfile import TemporaryDirectory

import torch

from ladder_cli.config.choices import Dtype, ExportFormat, Quantization
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.generate.vllm_engine import local_folder
from ladder_cli.generate.vllm_processes import ServedModel
from ladder_cli.serve.export import write_export
from ladder_cli.trunk.loading import planned_dtype


def served_run(trained: TrainedRun, device: torch.device) -> ServedModel:
    """A run, exported as `ladder-export format=vllm` does it, into a temporary folder.

    Raises:
        UserError: if it cannot be served.
        RunFailed: if what was written is not what was trained.
    """
    # Deleted by the engine once it is read, or with the process.
    home = TemporaryDirectory(prefix="ladder-vllm-")
    folder = f"{home.name}/model"
    written = write_export(trained, ExportFormat.VLLM, folder, device, Dtype.AUTO)
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
