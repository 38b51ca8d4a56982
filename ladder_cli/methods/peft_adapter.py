"""Reading LoRA adapters, those of strangers included.

peft's own loader takes pickled weights where there is nothing else, imports modules that the config names and matches
layers by regular expressions out of it. Here a config is read field by field: a plain LoRA, or a line that says what
it is instead.
"""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.methods import lora as qlora
from ladder_cli.nn import adapter
from ladder_cli.nn.loss import DEFAULT_CHUNK

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
        "init_lora_weights",
        "megatron_core",
        "auto_mapping",
        "qalora_group_size",
    ),
)
_LARGEST_RANK = 2**14


def load(folder: str | Path, backbone: PreTrainedModel) -> PeftModel:
    """A LoRA adapter on its loaded backbone, in evaluation mode.

    Raises:
        UserError: if it is no plain LoRA, is damaged, or does not fit the backbone.
    """
    config = _lora_config(adapter.read_config(folder), folder)
    qlora.prepare(backbone, gradient_checkpointing=False, loss_chunk=DEFAULT_CHUNK)
    try:
        with qlora.quiet_peft():
            model = PeftModel(backbone, config)
    except ValueError as error:  # none of the layers it names is there
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"the adapter in {folder} does not fit this backbone: {reason}.") from error
    load_weights(model, Path(folder))
    return model.eval()


def load_weights(model: PeftModel, folder: Path) -> None:
    """Overwrite the low-rank matrices of `model`.

    Raises:
        UserError: if the file is missing or broken, or does not match the model's matrices exactly.
    """
    stored = adapter.read_weights(folder)
    adapter.check_fit(stored, get_peft_model_state_dict(model, save_embedding_layers=False), folder)
    set_peft_model_state_dict(model, stored)


def _lora_config(values: dict[str, Any], folder: str | Path) -> LoraConfig:
    path = Path(folder) / adapter.CONFIG_FILE
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
    given |= _which_layers(values, path)
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


def _layer_names(names: Any, path: Path) -> list[str] | str:
    """Names of layers; a regular expression, as a text would be read, could run for ever."""
    if names == "all-linear":
        return names
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    raise UserError(f"{path}: target_modules is no list of layers' names but {str(names)[:60]}.")
