"""Reading LoRA adapters, those of strangers included.

peft's own loader takes pickled weights where there is nothing else, imports modules that the config names and matches
layers by regular expressions out of it. Here a config is read field by field: a plain LoRA, or a line that says what
it is instead.
"""

import re
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.methods.lora import LowRankModel
from ladder_cli.nn.adapter import CONFIG_FILE, AdapterFolder
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.parts import keep_differentiable

# Fields that are read, by their type.
_READ: dict[str, type | tuple[type, ...]] = {
    "r": int,
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "fan_in_fan_out": bool,
    "use_rslora": bool,
}
# Fields that say nothing about the computation, or nothing that loading would follow; and those read further down.
_IGNORED = (
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *(
        "target_modules",
        "layers_to_transform",
        "layers_pattern",
        "exclude_modules",
        "init_lora_weights",
        "megatron_core",
        "auto_mapping",
        "qalora_group_size",
    ),
)
_LARGEST_RANK = 2**14
_PARTS_OF_ONE = re.compile(r"[A-Za-z_][\w.]*\\\.\.\*")  # `lm_head\..*`


def load(folder: str | Path | AdapterFolder, backbone: PreTrainedModel, runtime: Runtime | None = None) -> LowRankModel:
    """A LoRA adapter on its loaded backbone, in evaluation mode.

    Raises:
        UserError: if it is no plain LoRA, is damaged, or does not fit the backbone.
    """
    return LoRAHost(backbone, runtime).put_on(AdapterFolder.open(folder))


class LoRAHost:
    """A backbone on which LoRA adapters take turns, one at a time."""

    def __init__(self, backbone: PreTrainedModel, runtime: Runtime | None = None) -> None:
        """The backbone is changed from now on: how its 4-bit layers compute (`keep_differentiable`)."""
        self._backbone, self._runtime = backbone, runtime
        self._modules = _modules_of(backbone)
        self._model: LowRankModel | None = None
        self._config: dict[str, Any] = {}
        keep_differentiable(backbone)

    def put_on(self, folder: AdapterFolder) -> LowRankModel:
        """The backbone with this adapter, in evaluation mode; a model that was handed out before is not to be used.

        Where the adapter before is of the same shape, its weights are overwritten, all of them. Otherwise its layers
        are taken out before the new ones go in.

        Raises:
            UserError: if it is no plain LoRA, is damaged, or does not fit the backbone; or if the backbone's layers
                are not back at their places. Then the host is not to be used any more.
        """
        config = lora_config(folder)
        # Before peft fills it in.
        asked = config.to_dict()
        if self._model is None or asked != self._config:
            self._take_off(folder)
            try:
                self._model = LowRankModel(self._backbone, config, self._runtime)
            except ValueError as error:  # none of the layers it names is there
                reason = " ".join(str(error).split())[:160]
                raise UserError(f"the adapter in {folder} does not fit this backbone: {reason}.") from error
            self._config = asked
        load_weights(self._model, folder)
        return self._model.eval()

    def _take_off(self, folder: AdapterFolder) -> None:
        if self._model is None:
            return
        self._model.unload()
        self._model = None
        # Left by peft, which would warn of a second adapter.
        vars(self._backbone).pop("peft_config", None)
        if _modules_of(self._backbone) != self._modules:
            raise UserError(f"the adapter in {folder} cannot follow another one on this backbone: evaluate it alone.")


def _modules_of(model: PreTrainedModel) -> list[tuple[str, int]]:
    return [(name, id(module)) for name, module in model.named_modules()]


def load_weights(model: PeftModel, folder: str | Path | AdapterFolder) -> None:
    """Overwrite the low-rank matrices of `model`.

    Raises:
        UserError: if the file is missing or broken, or does not match the model's matrices exactly.
    """
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    folder = folder if isinstance(folder, AdapterFolder) else AdapterFolder.of_checkpoint(folder)
    set_peft_model_state_dict(model, folder.tensors(own))


def lora_config(folder: AdapterFolder) -> LoraConfig:
    """The shape of a plain LoRA.

    Raises:
        UserError: if the folder describes anything else.
    """
    values, path = folder.config(), folder.path / CONFIG_FILE
    if values.get("peft_type") != "LORA":
        raise UserError(f"{path} describes a '{str(values.get('peft_type'))[:40]}' adapter: only LORA can be loaded.")
    plain = LoraConfig().to_dict()
    for name, value in values.items():
        if name in _READ:
            if not isinstance(value, _READ[name]):
                raise UserError(f"{path}: {name} is {str(value)[:40]}.")
        elif name not in _IGNORED and value != plain.get(name) and value not in (None, False, {}, []):
            raise UserError(f"{path} sets {name[:60]}={str(value)[:40]}: only plain LoRA adapters can be loaded.")
    given = {name: values[name] for name in _READ if name in values}
    if not 1 <= given.get("r", 1) <= _LARGEST_RANK:
        raise UserError(f"{path}: r is {given['r']}.")
    given |= _which_layers(values, path) | _left_out(values, path)
    return LoraConfig(**given, target_modules=_layer_names(values.get("target_modules"), path), task_type="CAUSAL_LM")


def _which_layers(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The decoder layers that are adapted, where it is not all of them (`method=suffix`)."""
    numbers, pattern = values.get("layers_to_transform"), values.get("layers_pattern")
    if numbers is None and pattern in (None, "", []):
        return {}
    if not isinstance(numbers, list) or not numbers or not all(type(number) is int for number in numbers):
        raise UserError(f"{path}: layers_to_transform is no list of layers' numbers but {str(numbers)[:60]}.")
    # peft reads it as a regular expression, which could run for ever.
    if pattern not in (None, "", []) and not (isinstance(pattern, str) and pattern.isidentifier()):
        raise UserError(f"{path}: layers_pattern is no attribute's name but {str(pattern)[:60]}.")
    return {"layers_to_transform": numbers, "layers_pattern": pattern or None}


def _left_out(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The module whose parts are not adapted: a quantised head (`lora.attach`)."""
    left_out = values.get("exclude_modules")
    if left_out in (None, "", []):
        return {}
    # peft reads it as a regular expression, which could run for ever: a name and all below it, nothing else.
    if isinstance(left_out, str) and _PARTS_OF_ONE.fullmatch(left_out):
        return {"exclude_modules": left_out}
    raise UserError(f"{path} sets exclude_modules={str(left_out)[:40]}: only the parts of one module can be left out.")


def _layer_names(names: Any, path: Path) -> list[str] | str:
    """Names of layers; a regular expression, as a text would be read, could run for ever."""
    if names == "all-linear":
        return names
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    raise UserError(f"{path}: target_modules is no list of layers' names but {str(names)[:60]}.")
