"""Loads a checkpoint and checks that every weight is where it belongs: nothing random, nothing left over.

Transformers initialises weights that a checkpoint lacks at random and continues. Here a load that does not fit is
refused, and the message names the weights.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.ranks import is_main_process

_LOG = logging.getLogger("ladder_cli")
# Prefixes that wrappers add to names: torch.compile, DataParallel, PEFT, a model inside a model.
_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.", "model.")
# Buffers that older versions stored and that a model computes itself: rotary frequencies, causal masks.
_MADE_BY_THE_MODEL = re.compile(r"(rotary_emb\.inv_freq|attn\.masked_bias|attention\.masked_bias)$")
# In models for text and images: the parts outside the language model.
_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")
_LAYER = re.compile(r"^(.*\.)?(layers|h)\.(?P<number>\d+)\.")
_SHOWN = 3
_BLOCK = 2**24  # values that are added up at a time: PyTorch converts them to float32 first


@dataclass(frozen=True)
class _Findings:
    """What Transformers reports of a load, by the names in the model."""

    missing: set[str]
    unexpected: set[str]
    mismatched: set[tuple[str, Any, Any]]

    @classmethod
    def of(cls, info: dict[str, Any]) -> "_Findings":
        unexpected = {name for name in info["unexpected_keys"] if not _MADE_BY_THE_MODEL.search(name)}
        return cls(set(info["missing_keys"]), unexpected, set(info["mismatched_keys"]))

    def as_words(self) -> str:
        shapes = [f"{name} {list(stored)} for {list(own)}" for name, stored, own in sorted(self.mismatched)]
        groups = (("missing", self.missing), ("not of this model", self.unexpected), ("of another shape", shapes))
        return "; ".join(f"{len(names)} {what} ({_first(names)})" for what, names in groups if names)


def load_weights(
    location: str, config: PreTrainedConfig | None = None, layers: int | None = None, **options: Any
) -> PreTrainedModel:
    """Load a causal language model; all its weights are those of the checkpoint.

    Args:
        location: folder or hub repository.
        config: the architecture, if not the one that the checkpoint names: the text part of a larger model.
        layers: so many, the first ones, alone; `config` then has no more of them. None: all.
        options: for `from_pretrained`.

    Raises:
        UserError: if a weight is missing, left over, of another shape, or not finite. Names with a known wrapper before
            them (`torch.compile`, `DataParallel`, PEFT) are read without it, which is logged.
        OSError, ValueError, ...: raised by `from_pretrained` if there is nothing to read.
    """
    text_part = {r"^(model\.)?language_model\.(model\.)?": "model."} if config is not None else {}
    model, findings = _load(location, config, text_part, options)
    wrapper = _common_wrapper(findings)
    if wrapper:
        _say(f"the names of the weights in {location} carry '{wrapper}': read without it")
        del model
        model, findings = _load(location, config, {_pattern(wrapper): ""} | text_part, options)
    if config is not None:
        # Towers for images and sound, and what joins them to the text.
        others = {name for name in findings.unexpected if is_other_part(name)}
        if others or layers is None:
            _say(f"{location} holds more than a language model: its text part ({config.model_type}) is used alone")
        higher = {name for name in findings.unexpected if layers is not None and (layer_number(name) or 0) >= layers}
        findings = _Findings(findings.missing, findings.unexpected - others - higher, findings.mismatched)
    if findings.missing or findings.unexpected or findings.mismatched:
        raise UserError(
            f"the weights in '{location}' do not fit its config.json ({type(model).__name__}): {findings.as_words()}. "
            "Give a model whose weights and config.json belong together."
        )
    refuse_not_finite(model, location)
    return model


def _load(
    location: str, config: PreTrainedConfig | None, renamed: dict[str, str], options: dict[str, Any]
) -> tuple[PreTrainedModel, _Findings]:
    """Load and collect what does not fit; wrong shapes are reported together and not one by one."""
    if config is not None:
        options = options | {"config": config}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location,
        key_mapping=renamed or None,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        **options,
    )
    model: PreTrainedModel = loaded[0]
    findings = _Findings.of(loaded[1])
    findings.mismatched.update(_quantised_mismatches(model))
    return model, findings


def _quantised_mismatches(model: nn.Module) -> Iterable[tuple[str, Any, Any]]:
    """Yield quantised matrices of a wrong shape as (name, stored, own): Transformers does not compare them."""
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit | bitsandbytes.nn.Linear8bitLt):
            weight: Any = module.weight
            stored = tuple(weight.quant_state.shape if getattr(weight, "quant_state", None) else weight.shape)
            if stored != (module.out_features, module.in_features):
                yield f"{name}.weight", stored, (module.out_features, module.in_features)


def _common_wrapper(findings: _Findings) -> str:
    """Return the prefix without which unexpected names are those of missing weights; empty if there is none."""
    found = set()
    for name in findings.unexpected:
        wrapper, rest = "", name
        while (part := next((w for w in _WRAPPERS if rest.startswith(w)), None)) is not None:
            wrapper, rest = wrapper + part, rest.removeprefix(part)
            if rest in findings.missing:
                found.add(wrapper)
                break
    if not found and any(without_compile(name) in findings.missing for name in findings.unexpected):
        return "_orig_mod."  # parts were compiled one by one
    return found.pop() if len(found) == 1 else ""


def is_other_part(name: str) -> bool:
    """Whether a weight belongs to what a model for text and images has beside its language model."""
    return name.removeprefix("model.").startswith(_OTHER_PARTS)


def layer_number(name: str) -> int | None:
    """The decoder layer that a weight belongs to, counted from 0; None for a weight outside of them."""
    found = _LAYER.search(name)
    return int(found["number"]) if found is not None else None


def name_in_layer(name: str) -> str:
    """A weight's name within its decoder layer, without what `torch.compile` adds."""
    return without_compile(_LAYER.sub("", name))


def made_by_the_model(name: str) -> bool:
    """Whether a stored tensor is one that a model computes itself."""
    return _MADE_BY_THE_MODEL.search(name) is not None


def without_compile(name: str) -> str:
    """Return a weight's name without the part that `torch.compile` adds."""
    return name.replace("_orig_mod.", "")


def _pattern(wrapper: str) -> str:
    return r"_orig_mod\." if wrapper == "_orig_mod." else "^" + re.escape(wrapper)


def refuse_not_finite(model: nn.Module, location: str) -> None:
    """Refuse weights with a value that is not finite; for quantised weights the scales are checked.

    Raises:
        UserError: naming the first.
    """
    for name, parameter in model.named_parameters():
        for values in (parameter, *_scales(parameter)):
            if values.is_meta or not values.is_floating_point():
                continue
            if not all(_finite(block) for block in values.flatten().split(_BLOCK)):
                raise UserError(f"the weights in '{location}' hold values that are not finite, in {name}.")


def _finite(values: Tensor) -> bool:
    # A sum is fast; every value is checked only if the sum is not finite.
    return bool(torch.isfinite(values.sum(dtype=torch.float32)) or torch.isfinite(values).all())


def _scales(parameter: Any) -> Iterable[Tensor]:
    state, rows = getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)
    if state is not None:
        yield state.absmax
        if getattr(state, "nested", False):
            yield state.state2.absmax
            yield state.offset
    if rows is not None:
        yield rows


def _first(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (", ..." if len(ordered) > _SHOWN else "")


def _say(line: str) -> None:
    if is_main_process():
        _LOG.warning("note: %s", line)
