"""Fine-tune large language models at low memory with ladder side networks.

from ladder_cli import compare_runs, evaluate_model, finetune

run = finetune("method=xladder", "train.max_steps=100")      # the options of ladder-train
metrics = evaluate_model(f"run={run.path}")                  # and of ladder-eval

The parts, for other trainers:

from ladder_cli import LadderModel, connect

backbone = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-1.5B")
model = LadderModel.on(backbone, connect(backbone.config.num_hidden_layers, "aligned"), reduction=16)
...                                       # any Trainer
model.save_pretrained("adapter")          # the side network alone
model = LadderModel.from_pretrained("adapter", backbone=backbone)

Once this package is imported, `AutoModelForCausalLM.from_pretrained` loads a folder of `ladder-export format=vllm`.
"""

from typing import TYPE_CHECKING, Any

from ladder_cli.serve.auto import make_known

if TYPE_CHECKING:
    from ladder_cli.api import FineTuned, compare_runs, evaluate_model, finetune, plan_run
    from ladder_cli.errors import Interrupted, RunFailed, UserError
    from ladder_cli.generate.engine import Engine
    from ladder_cli.methods.base import Method
    from ladder_cli.methods.registry import load_adapter
    from ladder_cli.nn.connections import connect
    from ladder_cli.nn.ladder import LadderModel
    from ladder_cli.nn.ladder_config import LadderConfig
    from ladder_cli.trunk.base import Objective, Trunk
    from ladder_cli.trunk.open import open_trunk

__version__ = "0.2.0"
__all__ = [
    "Engine",
    "FineTuned",
    "Interrupted",
    "LadderConfig",
    "LadderModel",
    "Method",
    "Objective",
    "RunFailed",
    "Trunk",
    "UserError",
    "compare_runs",
    "connect",
    "evaluate_model",
    "finetune",
    "load_adapter",
    "open_trunk",
    "plan_run",
]

_HOMES = {
    "Engine": "generate.engine",
    "FineTuned": "api",
    "Interrupted": "errors",
    "LadderConfig": "nn.ladder_config",
    "LadderModel": "nn.ladder",
    "Method": "methods.base",
    "Objective": "trunk.base",
    "RunFailed": "errors",
    "Trunk": "trunk.base",
    "UserError": "errors",
    "compare_runs": "api",
    "connect": "nn.connections",
    "evaluate_model": "api",
    "finetune": "api",
    "load_adapter": "methods.registry",
    "open_trunk": "trunk.open",
    "plan_run": "api",
}


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is asked for: the commands must answer before torch is loaded."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"ladder_cli.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


make_known()
