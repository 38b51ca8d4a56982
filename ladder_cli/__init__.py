"""Fine-tune large language models at low memory with ladder side networks.

from ladder_cli import LadderModel, connect

backbone = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-1.5B")
model = LadderModel.on(backbone, connect(backbone.config.num_hidden_layers, "aligned"), reduction=16)
...                                       # any Trainer
model.save_pretrained("adapter")          # the side network alone
model = LadderModel.from_pretrained("adapter", backbone=backbone)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladder_cli.methods.registry import load_adapter
    from ladder_cli.nn.connections import connect
    from ladder_cli.nn.ladder import LadderModel
    from ladder_cli.nn.ladder_config import LadderConfig

__version__ = "0.2.0"
__all__ = ["LadderConfig", "LadderModel", "connect", "load_adapter"]

_HOMES = {
    "LadderConfig": "ladder_cli.nn.ladder_config",
    "LadderModel": "ladder_cli.nn.ladder",
    "connect": "ladder_cli.nn.connections",
    "load_adapter": "ladder_cli.methods.registry",
}


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is asked for: the commands must answer before torch is loaded."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
