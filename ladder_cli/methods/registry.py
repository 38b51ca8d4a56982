"""The one place that maps a method's config to its code, and an adapter on disk to what can load it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ladder_cli.config.methods import LadderMethodConfig, MethodConfig, QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.errors import UserError
from ladder_cli.methods import peft_adapter
from ladder_cli.methods.base import Method
from ladder_cli.methods.ladder import LadderMethod
from ladder_cli.methods.proof import prove
from ladder_cli.methods.qlora import QLoRAMethod
from ladder_cli.methods.suffix import SuffixMethod
from ladder_cli.nn import adapter
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import TrainableModule, Trunk
from ladder_cli.trunk.live import trunk_over

METHODS: dict[type[MethodConfig], Callable[[Any], Method]] = {
    LadderMethodConfig: LadderMethod,
    QLoRAMethodConfig: QLoRAMethod,
    SuffixMethodConfig: SuffixMethod,
}


def _peft(folder: adapter.AdapterFolder, trunk: Trunk, runtime: Runtime | None) -> TrainableModule:
    return peft_adapter.load(folder, trunk.whole(), runtime)


def _ladder(folder: adapter.AdapterFolder, trunk: Trunk, runtime: Runtime | None) -> TrainableModule:
    return LadderModel.from_pretrained(folder, backbone=trunk, runtime=runtime)


# By `AdapterFolder.loader`: what a method's `save_pretrained` wrote.
LOADERS: dict[str, Callable[[adapter.AdapterFolder, Trunk, Runtime | None], TrainableModule]] = {
    adapter.PEFT: _peft,
    adapter.LADDER: _ladder,
}


def method_for(config: MethodConfig) -> Method:
    """The code of a method's config."""
    return METHODS[type(config)](config)


def load_adapter(
    folder: str | Path | adapter.AdapterFolder, backbone: PreTrainedModel | Trunk, runtime: Runtime | None = None
) -> TrainableModule:
    """A trained adapter of whatever method on its loaded backbone, in evaluation mode.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        backbone: loaded, or the trunk over it.
        runtime: how it runs.

    Raises:
        UserError: if the folder holds no adapter, or one of another backbone, or adapter and architecture do not go
            together.
    """
    trunk = trunk_over(backbone)
    model: TrainableModule
    opened = adapter.AdapterFolder.open(folder)
    if opened.loader not in LOADERS:
        raise UserError(
            f"{folder} holds an adapter of type {opened.loader}, and those that can be read are "
            f"{', '.join(LOADERS)}: was it written by a newer version, or by another tool?"
        )
    model = LOADERS[opened.loader](opened, trunk, runtime)
    prove(model, untrained=False)
    return model
