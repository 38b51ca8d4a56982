"""A finished training run, opened for use: its adapter, its backbone, and the rendering that it was trained with."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from ladder_cli.config.compose import given_options, parse
from ladder_cli.config.schema import DEFAULT_DATE, ModelConfig, TrainConfig
from ladder_cli.config.unread import refuse_unread_model
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.generate.backbones import Backbones, SharedBackbone
from ladder_cli.nn.adapter import AdapterFolder
from ladder_cli.run.directory import RunDir, read_json


@dataclass(frozen=True)
class Permission:
    """What a command line lets pass that is refused by default.

    Attributes:
        prompt_mismatch: another prompt than the adapter was trained with.
        other_backbone: other weights than it was trained on.
    """

    prompt_mismatch: bool = False
    other_backbone: bool = False


@dataclass(frozen=True)
class TrainedRun:
    """A run directory and what stands in it. No weights are read yet: `backbone` loads them when it is asked.

    Attributes:
        adapter: verified.
        model: the backbone's config, with what the command line changed.
        renderer: of prompts, as in training.
    """

    run: RunDir
    adapter: AdapterFolder
    model: ModelConfig
    backbone: SharedBackbone
    renderer: PromptRenderer

    @classmethod
    def open(
        cls,
        run: RunDir,
        backbones: Backbones,
        model: ModelConfig,
        overrides: Sequence[str],
        instruction: str | None = None,
        permission: Permission | None = None,
    ) -> "TrainedRun":
        """Open a run directory.

        Args:
            run: the directory.
            backbones: where its backbone is shared with other runs.
            model: of the command line; of it those options count that `overrides` name.
            overrides: the options as they were typed.
            instruction: in place of the recorded one.
            permission: what is let pass; nothing by default.

        Raises:
            UserError: if the run is unfinished or damaged, or prompt or weights are others than in training.
        """
        permission = permission or Permission()
        trained: TrainConfig = parse(run.read_config(), TrainConfig)
        config = _with_overrides(trained.model, model, list(overrides))
        if not AdapterFolder.has_weights(run.adapter):
            raise UserError(f"{run.path} has no adapter: its training is '{run.status()}'; continue it first.")
        # What is damaged shall be refused before anything is loaded or written.
        adapter = AdapterFolder.open(run.adapter)
        backbone = backbones.of(config)
        renderer = _renderer(run, backbone.tokenizer, instruction, permission.prompt_mismatch)
        _refuse_other_backbone(run, backbone.identity, permission.other_backbone)
        return cls(run, adapter, config, backbone, renderer)


def _renderer(
    run: RunDir, tokenizer: PreTrainedTokenizerBase, instruction: str | None, mismatch_allowed: bool
) -> PromptRenderer:
    """The rendering that a run was trained with.

    Raises:
        UserError: if the adapter's record of it is damaged, or this is provably or possibly another.
    """
    record = read_json(run.prompt)
    # Older versions recorded no date.
    known = {"date": DEFAULT_DATE, **record}
    if not all(isinstance(known.get(name), str) for name in ("instruction", "date", "fingerprint")):
        raise UserError(
            f"{run.prompt} does not say which instruction, date and prompt the adapter was trained with: restore that "
            "file, or train again."
        )
    asked = instruction if instruction is not None else record["instruction"]
    renderer = PromptRenderer(tokenizer, asked, known["date"])
    if renderer.is_rendering_of(record) or mismatch_allowed:
        return renderer
    if "date" not in record and renderer.prints_date:
        raise UserError(
            f"{run.path} was trained before prompts recorded their date, and the chat template prints the day, so that "
            f"nobody knows which prompt it saw: train again, or say allow_prompt_mismatch=true to ask as on "
            f"{DEFAULT_DATE}."
        )
    raise UserError(
        f"{run.path} was trained under another prompt (template, instruction, date or end token) than this one: "
        "drop instruction=, use the tokenizer it was trained with, or say allow_prompt_mismatch=true."
    )


def _refuse_other_backbone(run: RunDir, backbone: str | None, allowed: bool) -> None:
    """Refuse an adapter on other weights than it was trained on; where it does not say which those were, say so.

    Raises:
        UserError: if the weights differ, or the record of them is damaged.
    """
    if not run.backbone.is_file():
        print(
            f"warning: {run.path} was trained before adapters recorded the weights they stand on: that this backbone "
            "is the one is taken on trust.",
            file=sys.stderr,
        )
        return
    record = read_json(run.backbone)
    trained_on = record.get("weights")
    if not isinstance(trained_on, str | None):
        raise UserError(f"{run.backbone} names no weights: restore it, or train again.")
    if None not in (trained_on, backbone) and trained_on != backbone:
        if allowed:
            print(f"warning: {run.path} is evaluated on other weights than it was trained on.", file=sys.stderr)
            return
        raise UserError(
            f"{run.path} was trained on other weights (of '{record.get('name')}', {trained_on}) than this backbone's "
            f"({backbone}): give the folder of those as model.path=DIR, or say allow_other_backbone=true."
        )


def _with_overrides(recorded: ModelConfig, given: ModelConfig, overrides: list[str]) -> ModelConfig:
    """The run's model, with the single options that were given on the command line."""
    if "model" in given_options(overrides):
        raise UserError("run= brings its own model: drop model=NAME (model.path=DIR may be given where it has moved).")
    options = [name for name in given_options(overrides) if name.startswith("model.")]
    names = dict.fromkeys(name.split(".")[1] for name in options)
    # A run directory may be a stranger's: code from the hub runs only where this command line asks for it.
    recorded = replace(recorded, trust_remote_code=given.trust_remote_code)
    model = replace(recorded, **{name: getattr(given, name) for name in names})
    refuse_unread_model(model, options)
    return model
