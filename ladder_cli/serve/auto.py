"""Lets `AutoModelForCausalLM.from_pretrained` read an exported ladder folder, once `ladder_cli` is imported.

`import ladder_cli` must not import Transformers, which takes seconds. So the folder's model type becomes known when
Transformers' module of configs does, before or after, and what reads a folder is imported when one is read.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ladder_cli.serve.served import MODEL_TYPE

_CONFIGS = "transformers.models.auto.configuration_auto"


class FolderConfig:
    """Stands for the model type in Transformers' registry, and hands over to the config's class."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config of a ladder, for whose class `AutoModelForCausalLM` is prepared then."""
        from ladder_cli.serve.portable import PortableConfig

        return PortableConfig.from_dict(config_dict, **kwargs)


def make_known() -> None:
    """Register the model type, now or as soon as Transformers is imported."""
    configs = sys.modules.get(_CONFIGS)
    if configs is not None and hasattr(configs, "AutoConfig"):
        _register(configs)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _register(configs: ModuleType) -> None:
    configs.AutoConfig.register(MODEL_TYPE, FolderConfig, exist_ok=True)


class _AfterImport(MetaPathFinder):
    """Registers once the module of configs has been executed; finds no module itself."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The module's own spec, whose loader goes on to register."""
        if fullname != _CONFIGS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            _and_register(spec)
        return spec


def _and_register(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _register(module)

    loader.exec_module = exec_module
