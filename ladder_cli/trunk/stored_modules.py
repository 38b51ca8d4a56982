"""Modules as plain tensors and back, weights that bitsandbytes has quantised with all that belongs to them.

A tensor is named as its parameter or buffer is; parts of a quantised weight carry a colon: `q_proj.weight:absmax`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Int8Params, Linear8bitLt, Params4bit
from torch import Tensor, nn

from ladder_cli.trunk.layer_files import Contents

# A module, the name of one of its parameters, and the parameter.
Place = tuple[nn.Module, str, nn.Parameter]
_Hook = Callable[[Any, tuple], None]


def taken_apart(root: nn.Module, without: Collection[nn.Module] = (), buffers: bool = False) -> Contents:
    """The weights of a module as plain tensors; shared ones once, under their first name.

    Args:
        without: modules that are left out, with all that is in them.
        buffers: take the buffers too.
    """
    left_out = {id(part) for module in without for part in module.modules()}
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    seen: set[int] = set()
    for prefix, module in root.named_modules():
        if id(module) in left_out:
            continue
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                full = _joined(prefix, name)
                tensors[full] = parameter.data
                parts, told = _PARTS.get(type(parameter), _nothing)(module, parameter)
                tensors |= {f"{full}:{part}": tensor for part, tensor in parts.items()}
                if told:
                    facts[full] = told
        if buffers:
            tensors |= {_joined(prefix, name): value for name, value in module._buffers.items() if value is not None}
    return Contents(tensors, facts)


def parameters_of(root: nn.Module, contents: Contents) -> dict[str, nn.Parameter]:
    """Parameters of the kinds that `root` has, over the tensors of `contents`: by name, those that are there."""
    made = {}
    for prefix, module in root.named_modules():
        for name, parameter in module._parameters.items():
            full = _joined(prefix, name)
            if parameter is not None and full in contents.tensors:
                make = _MAKERS.get(type(parameter), _plain)
                made[full] = make(module, full, contents)
    return made


def put_together(root: nn.Module, contents: Contents) -> None:
    """Give a module the weights of `contents`, in place; shared ones stay shared.

    Raises:
        KeyError: if a parameter or buffer that has no values is not in `contents`.
    """
    made = parameters_of(root, contents)
    before: dict[int, nn.Parameter] = {}
    for prefix, module in root.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in before:
                before[id(parameter)] = made[_joined(prefix, name)]
            module._parameters[name] = before[id(parameter)]
        for name, buffer in module._buffers.items():
            full = _joined(prefix, name)
            if full in contents.tensors:
                module._buffers[name] = contents.tensors[full].clone()
            elif buffer is not None and buffer.is_meta:
                raise KeyError(full)
    for module in root.modules():
        for parameter in module._parameters.values():
            _remember(module, parameter)


def set_parameters(modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]) -> None:
    """Point modules at other parameters of the same kinds.

    Args:
        modules: by their prefix in the names of `parameters`.
    """
    for full, parameter in parameters.items():
        prefix, _, name = full.rpartition(".")
        module = modules[prefix]
        module._parameters[name] = parameter
        _remember(module, parameter)


def lay_bare(root: nn.Module, device: torch.device) -> None:
    """Turn quantised weights into plain ones over the same bytes, in place, for whoever cuts weights among processes.

    Their scales stay whole, and go to `device` in copies of their own. Before each product its weight is made again of
    what then stands in the plain one's place.
    """
    for module in root.modules():
        for name, parameter in list(module._parameters.items()):
            make = _REMAKERS.get(type(parameter))
            if make is not None:
                module.register_forward_pre_hook(make(module, name, parameter, device))
                plain: Any = nn.Parameter(parameter.data, requires_grad=False)  # type: ignore[union-attr]
                module._parameters[name] = plain


def _remake_4bit(module: Any, name: str, parameter: Any, device: torch.device) -> _Hook:
    state = parameter.quant_state
    for part in (state, state.state2):
        part.absmax, part.code = (tensor.to(device, copy=True) for tensor in (part.absmax, part.code))
    state.offset = state.offset.to(device, copy=True)
    module.quant_state = state
    told = {"blocksize": state.blocksize, "quant_type": state.quant_type, "quant_storage": parameter.dtype}

    def remake(module: Any, args: tuple) -> None:
        weight = module._parameters[name]
        if not isinstance(weight, Params4bit):
            module._parameters[name] = Params4bit(
                weight.data, requires_grad=False, quant_state=state, module=module, bnb_quantized=True, **told
            )

    return remake


def _remake_8bit(module: Any, name: str, parameter: Any, device: torch.device) -> _Hook:
    scales = _parts_of_8bit(module, parameter)[0]["SCB"].to(device, copy=True)

    def remake(module: Any, args: tuple) -> None:
        weight = module._parameters[name]
        if not isinstance(weight, Int8Params):
            made: Any = Int8Params(weight.data, requires_grad=False, has_fp16_weights=False)
            vars(made)["scales"] = scales
            module._parameters[name] = made
            _remember(module, made)

    _forget_8bit(module)
    return remake


def _forget_8bit(module: Any) -> None:
    module.state.CB = None  # which would keep the whole weight


def _remember(module: nn.Module, parameter: nn.Parameter | None) -> None:
    """Where bitsandbytes' layers keep what belongs to a weight beside it."""
    if isinstance(parameter, Params4bit):
        module.quant_state = parameter.quant_state
    elif isinstance(parameter, Int8Params) and isinstance(module, Linear8bitLt):
        module.state.CB, module.state.SCB = parameter.data, vars(parameter)["scales"]


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _nothing(module: nn.Module, parameter: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {}, {}


def _parts_of_4bit(module: nn.Module, parameter: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = parameter.quant_state
    parts = {
        "absmax": state.absmax,
        "code": state.code,
        "offset": state.offset,
        "nested_absmax": state.state2.absmax,
        "nested_code": state.state2.code,
    }
    return parts, {
        "shape": list(state.shape),
        "dtype": str(state.dtype).removeprefix("torch."),
        "blocksize": state.blocksize,
        "quant_type": state.quant_type,
        "nested_blocksize": state.state2.blocksize,
        "nested_dtype": str(state.state2.dtype).removeprefix("torch."),
    }


def _parts_of_8bit(module: Any, parameter: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    scales = parameter.SCB if parameter.SCB is not None else module.state.SCB
    return {"SCB": scales}, {}


def _plain(module: nn.Module, full: str, contents: Contents) -> nn.Parameter:
    return nn.Parameter(contents.tensors[full], requires_grad=False)


def _make_4bit(module: Any, full: str, contents: Contents) -> nn.Parameter:
    told = contents.facts[full]

    def part(name: str) -> Tensor:
        return contents.tensors[f"{full}:{name}"]

    nested = QuantState(
        absmax=part("nested_absmax"),
        blocksize=told["nested_blocksize"],
        code=part("nested_code"),
        dtype=getattr(torch, told["nested_dtype"]),
    )
    state = QuantState(
        absmax=part("absmax"),
        shape=torch.Size(told["shape"]),
        code=part("code"),
        blocksize=told["blocksize"],
        quant_type=told["quant_type"],
        dtype=getattr(torch, told["dtype"]),
        offset=part("offset"),
        state2=nested,
    )
    made: nn.Parameter = Params4bit(
        contents.tensors[full],
        requires_grad=False,
        quant_state=state,
        blocksize=told["blocksize"],
        compress_statistics=True,
        quant_type=told["quant_type"],
        quant_storage=contents.tensors[full].dtype,
        module=module,
        bnb_quantized=True,
    )
    return made


def _make_8bit(module: nn.Module, full: str, contents: Contents) -> nn.Parameter:
    # As after `init_8bit_state`, which bitsandbytes calls at the first pass: the scales are the layer's.
    made: nn.Parameter = Int8Params(contents.tensors[full], requires_grad=False, has_fp16_weights=False)
    vars(made)["scales"] = contents.tensors[f"{full}:SCB"]
    return made


_PARTS: dict[type, Callable[[Any, Any], tuple[dict[str, Tensor], dict[str, Any]]]] = {
    Params4bit: _parts_of_4bit,
    Int8Params: _parts_of_8bit,
}
_REMAKERS: dict[type, Callable[[Any, str, Any, torch.device], _Hook]] = {
    Params4bit: _remake_4bit,
    Int8Params: _remake_8bit,
}
_MAKERS: dict[type, Callable[[nn.Module, str, Contents], nn.Parameter]] = {
    Params4bit: _make_4bit,
    Int8Params: _make_8bit,
}
