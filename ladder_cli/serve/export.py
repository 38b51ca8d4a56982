"""A trained run as a folder for others: an ordinary model, an adapter for peft, a folder for vLLM, a GGUF file.

What is written is read back and held against the model that was trained, logit by logit, before the folder gets its
name. So a folder that is there is whole, and says what the adapter says.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ladder_cli.config.choices import Dtype, ExportFormat
from ladder_cli.config.compose import parse
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.using import ExportConfig
from ladder_cli.errors import UserError
from ladder_cli.generate.backbones import Backbones
from ladder_cli.generate.trained import Permission, TrainedRun
from ladder_cli.methods.registry import load_adapter
from ladder_cli.nn.adapter import CONFIG_FILE, LADDER, PEFT, WEIGHTS_FILE
from ladder_cli.nn.cloning import put_in_place
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.ladder_config import has_suffix, read_ladder_config
from ladder_cli.plan.out_of_memory import free_memory
from ladder_cli.run.directory import PROMPT, RunDir
from ladder_cli.run.files import new_folder, refuse_full_folder, remove_folder, write_text
from ladder_cli.serve.card import CARD, Card
from ladder_cli.serve.check import Check, Difference, Said
from ladder_cli.serve.dense import densify
from ladder_cli.serve.gguf import convert, find_converter
from ladder_cli.serve.ladder_folder import read_ladder_folder, refuse_unserved, write_ladder_folder
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.parts import anatomy_of, keep_differentiable


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        output: the folder.
        kind: what it is, in words.
        difference: from the trained model.
        warning: of what was written, whoever uses it has to know; None: nothing.
    """

    output: Path
    kind: str
    difference: Difference
    warning: str | None = None


def export_run(run: RunDir, config: ExportConfig, overrides: list[str]) -> Exported:
    """Write what a run has trained in the form that is asked for.

    Args:
        run: the one that `config` names.
        config: with a format and an output.
        overrides: the options as they were typed.

    Raises:
        UserError: if the run, the format and the folder do not go together; told before any weight is read.
        RunFailed: if what was written gives other logits than what was trained; the folder is not there then.
    """
    assert config.format is not None
    assert config.output is not None
    output = Path(config.output)
    refuse_full_folder(output)
    backbones = Backbones(config.hardware.device)
    permission = Permission(prompt_mismatch=True, other_backbone=config.allow_other_backbone)
    trained = TrainedRun.open(run, backbones, config.model, overrides, permission=permission)
    _refuse_other_forms(trained, config.format)
    _refuse_other_values(trained)
    if config.dtype is not Dtype.AUTO and config.format is ExportFormat.PEFT:
        raise UserError(
            f"dtype={config.dtype} is not read: format=peft is the adapter byte for byte, as it was trained."
        )
    if config.push is not None:
        _refuse_private_backbone(trained, config.format, config.push)
    converter = find_converter(config.converter) if config.format is ExportFormat.GGUF else None
    return write_export(trained, config.format, output, backbones.device, config.dtype, converter, config.push)


def write_export(
    trained: TrainedRun,
    form: ExportFormat,
    output: str | Path,
    device: torch.device,
    dtype: Dtype,
    converter: Path | None = None,
    repository: str | None = None,
) -> Exported:
    """Write what a run has trained, and hold it against the trained model.

    Args:
        trained: the run.
        form: of what is written.
        output: a folder that is new or empty.
        device: where to compute.
        dtype: of the written weights.
        converter: for GGUF.
        repository: on the hub, where others will find it: then nothing written names a folder of this machine.

    Raises:
        UserError: if run and form do not go together.
        RunFailed: if what was written gives other logits; the folder is not there then.
    """
    _refuse_other_forms(trained, form)
    key = form, _kind(trained)
    with new_folder(Path(output)) as staged:
        export = _Export(trained, device, dtype, staged, converter, repository)
        difference = _FORMS[key](export)
        # An adapter for peft stays on an int8 backbone.
        warning = None if form is ExportFormat.PEFT else export.check.int8_warning(difference)
        _write_record(export, difference, warning)
        _write_card(export, form, warning)
    return Exported(Path(output), _SAID[key], difference, warning)


def write_served(trained: TrainedRun, output: str | Path, device: torch.device) -> Difference:
    """What vLLM reads of a ladder that is still being trained, held against it: without record and card.

    Args:
        trained: the run; its adapter is as the training has it.
        output: a folder that is new or empty.
        device: where to compute.

    Raises:
        UserError: if the plugin does not know such a backbone.
        RunFailed: if what was written gives other logits; the folder is not there then.
    """
    refuse_unserved(read_ladder_config(trained.adapter))
    with new_folder(Path(output)) as staged:
        return _for_vllm(_Export(trained, device, Dtype.AUTO, staged, None, None))


def _refuse_other_values(trained: TrainedRun) -> None:
    """What is written has the values of the backbone that was trained on, and is held against them."""
    before = parse(trained.run.read_config(), TrainConfig).model
    for name in ("quantization", "head_quantization"):
        then, now = getattr(before, name), getattr(trained.model, name)
        if then != now:
            raise UserError(
                f"model.{name}={now}: {trained.run.path} was trained with {then}, and other values would be exported "
                "than were trained: leave it out."
            )


def _refuse_private_backbone(trained: TrainedRun, form: ExportFormat, repository: str) -> None:
    if form is ExportFormat.PEFT and trained.model.hub_id is None:
        raise UserError(
            f"push={repository}: an adapter for peft names its backbone, and this one lies in a folder of this machine "
            f"({trained.model.location}): say where others find it with model.hub_id=OWNER/NAME."
        )


def _kind(trained: TrainedRun) -> str | None:
    """What is exported: the loader's name of the adapter, or of a ladder whose layers take the backbone's place
    `_BRANCH`.
    """
    adapter = trained.adapter
    if adapter.loader == LADDER and read_ladder_config(adapter).takes_place_of():
        return _BRANCH
    return adapter.loader


def _refuse_other_forms(trained: TrainedRun, form: ExportFormat) -> None:
    kind = _kind(trained)
    if (form, kind) not in _FORMS:
        raise UserError(_refusal(form, kind, trained))
    if _FORMS[form, kind] is _for_vllm:
        refuse_unserved(read_ladder_config(trained.adapter))


@dataclass(frozen=True)
class _Export:
    """One export: what, and where to."""

    trained: TrainedRun
    device: torch.device
    written_dtype: Dtype
    folder: Path
    converter: Path | None
    repository: str | None

    def dtype(self, model: nn.Module) -> torch.dtype:
        """Of the weights that are written."""
        own: torch.dtype = model.bare_backbone.dtype  # type: ignore[assignment]
        return _DTYPES.get(self.written_dtype, own)

    def model(self) -> Any:
        """The backbone with the adapter, held against itself, its quantised weights as they are stored."""
        backbone = load_backbone(self.trained.model, self.device)
        # Before the first pass: a weight that bitsandbytes has packed can be read no more.
        keep_differentiable(backbone)
        return load_adapter(self.trained.adapter, backbone)

    @property
    def check(self) -> Check:
        """Holds what is written against the trained model."""
        return Check(self.trained, self.device)


_DTYPES = {Dtype.FLOAT32: torch.float32, Dtype.BFLOAT16: torch.bfloat16, Dtype.FLOAT16: torch.float16}


def _merged(export: _Export) -> Difference:
    """What was learned as weights of the backbone: an ordinary model folder with its tokenizer."""
    return _merge_into(export, export.folder)


def _merge_into(export: _Export, folder: Path) -> Difference:
    model = export.model()
    said = export.check.dequantised(model)
    backbone = densify(model.bare_backbone, export.dtype(model))
    if isinstance(model, LadderModel):
        layers = anatomy_of(backbone).layers
        put_in_place(model.side, [layers[number - 1] for number in model.config.takes_place_of()])
    _save(export, backbone, folder)
    del model, backbone
    free_memory()
    return export.check.hold(said, _read_back(export, folder))


def _save(export: _Export, backbone: PreTrainedModel, folder: Path) -> None:
    backbone.save_pretrained(folder)
    export.trained.renderer.tokenizer.save_pretrained(folder)


def _read_back(export: _Export, folder: Path) -> nn.Module:
    """By plain Transformers, in the type that was written."""
    return _moved(AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True), export.device)


def _moved(model: nn.Module, device: torch.device) -> nn.Module:
    return model.to(device).eval()


def _for_peft(export: _Export) -> Difference:
    """The adapter as peft itself writes it, naming its backbone."""
    source = export.trained.adapter
    values = source.config() | {"base_model_name_or_path": _backbone_name(export), "inference_mode": True}
    # Of a quantised head, which no other loader makes; the layers that are adapted are all named.
    values["exclude_modules"] = None
    write_text(export.folder / CONFIG_FILE, json.dumps(values, indent=2, sort_keys=True) + "\n")
    (export.folder / WEIGHTS_FILE).write_bytes(source.weights.read_bytes())
    export.trained.renderer.tokenizer.save_pretrained(export.folder)
    model = export.model()
    trained = export.check.logits(model)
    said = Said(trained, trained, export.dtype(model))
    del model
    free_memory()
    # peft's own loader on the backbone as it was trained on: nothing of ours but the backbone's loading.
    backbone = load_backbone(export.trained.model, export.device)
    keep_differentiable(backbone)
    with warnings.catch_warnings():
        # A former name in Transformers, which peft still uses.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        plain = PeftModel.from_pretrained(backbone, str(export.folder))
    return export.check.hold(said, plain.eval())


def _for_vllm(export: _Export) -> Difference:
    """Backbone and side network in one folder, with a config that the plugin reads."""
    model: LadderModel = export.model()
    said, dtype = export.check.dequantised(model), export.dtype(model)
    densify(model.bare_backbone, dtype)
    # As it was trained, unless a type was asked for.
    side_dtype = _DTYPES.get(export.written_dtype, torch.float32)
    write_ladder_folder(model, export.folder, _backbone_name(export), side_dtype)
    export.trained.renderer.tokenizer.save_pretrained(export.folder)
    del model
    free_memory()
    return export.check.hold(said, _moved(read_ladder_folder(export.folder, local_files_only=True), export.device))


def _for_llama_cpp(export: _Export) -> Difference:
    """Merged beside it, converted, and the merged model deleted."""
    assert export.converter is not None
    merged = export.folder / "merged"
    merged.mkdir()
    difference = _merge_into(export, merged)
    convert(export.converter, merged, export.folder / f"{export.trained.run.path.resolve().name}.gguf")
    remove_folder(merged)
    return difference


def _backbone_name(export: _Export) -> str:
    """Where the backbone is; where the export goes to others, where they find it."""
    if export.repository is not None:
        return export.trained.model.hub_id or export.trained.model.name
    location = export.trained.model.location
    return str(Path(location).resolve()) if Path(location).is_dir() else location


def _write_record(export: _Export, difference: Difference, warning: str | None) -> None:
    """What this is: how it is to be asked, and of which run it was made."""
    trained = export.trained
    record = {
        "run": trained.run.path.resolve().name,
        "adapter": trained.adapter.digest,
        "backbone": {"name": _backbone_name(export), "weights": trained.backbone.identity},
        "prompt": trained.renderer.as_dict(),
        "stop_tokens": list(trained.renderer.end_texts),
        "check": vars(difference),
        **({} if warning is None else {"warning": warning}),
    }
    write_text(export.folder / "ladder_export.json", json.dumps(record, indent=2) + "\n")
    # As beside an adapter: whoever renders by it needs no run directory.
    write_text(export.folder / PROMPT, json.dumps(trained.renderer.as_dict(), indent=2) + "\n")


def _write_card(export: _Export, form: ExportFormat, warning: str | None) -> None:
    config = export.folder / "config.json"
    dtype = str(json.loads(config.read_text(encoding="utf-8"))["dtype"]) if config.is_file() else ""
    model = export.trained.model
    card = Card(export.trained, form, model.hub_id or model.name, dtype, warning, export.repository)
    write_text(export.folder / CARD, card.text())


_BRANCH = "branch"
_FORMS: dict[tuple[ExportFormat, str | None], Callable[[_Export], Difference]] = {
    (ExportFormat.VLLM, LADDER): _for_vllm,
    (ExportFormat.VLLM, _BRANCH): _for_vllm,
    (ExportFormat.MERGED, _BRANCH): _merged,
    (ExportFormat.GGUF, _BRANCH): _for_llama_cpp,
    (ExportFormat.VLLM, PEFT): _merged,
    (ExportFormat.MERGED, PEFT): _merged,
    (ExportFormat.PEFT, PEFT): _for_peft,
    (ExportFormat.GGUF, PEFT): _for_llama_cpp,
}
_MODEL = "an ordinary model, for Transformers, `vllm serve` and every other engine"
_GGUF = "a model for llama.cpp"
_WITH_PLUGIN = "a ladder with its backbone, for `vllm serve` with this package's plugin"
_SAID: dict[tuple[ExportFormat, str | None], str] = {
    (ExportFormat.VLLM, LADDER): _WITH_PLUGIN,
    (ExportFormat.VLLM, _BRANCH): _WITH_PLUGIN,
    (ExportFormat.MERGED, _BRANCH): _MODEL,
    (ExportFormat.GGUF, _BRANCH): _GGUF,
    (ExportFormat.VLLM, PEFT): _MODEL,
    (ExportFormat.MERGED, PEFT): _MODEL,
    (ExportFormat.PEFT, PEFT): "an adapter for peft, and for `vllm serve --enable-lora`",
    (ExportFormat.GGUF, PEFT): _GGUF,
}
_NO_MATRIX = (
    "is a second network beside its backbone and not a change of its weights, so that there is nothing to merge and no "
    "LoRA to write"
)

_NO_MATRIX_BELOW = (
    "has a second network below it, which joins the backbone between two layers and is no change of a weight, so that "
    "the whole cannot be merged or written as LoRA"
)


_WHOLE_LAYERS = "trains whole layers, which are no LoRA"


def _refusal(format: ExportFormat, kind: str | None, trained: TrainedRun) -> str:
    forms = [form for form, reads in _FORMS if reads == kind]
    if not forms:
        return f"{trained.run.path} holds an adapter of type {kind}, which cannot be exported."
    why = {LADDER: _NO_MATRIX, _BRANCH: _WHOLE_LAYERS}.get(str(kind), "has no such form")
    if has_suffix(trained.adapter):
        why = f"with a suffix {_NO_MATRIX_BELOW}"
    return (
        f"format={format} is not for {trained.run.path}: a {kind} {why}; it can be exported as "
        f"{' or '.join(f'format={form}' for form in forms)}, and asked by ladder-chat and ladder-eval as it is."
    )
