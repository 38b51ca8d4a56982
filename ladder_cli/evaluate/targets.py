"""What is evaluated: a backbone alone, or trained runs, of one experiment or of several."""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ladder_cli.config.choices import BenchmarkKind, Dtype, Quantization, Residency
from ladder_cli.config.compose import given_options, parse
from ladder_cli.config.schema import (
    DEFAULT_DATE,
    BenchmarkConfig,
    EvaluateConfig,
    ModelConfig,
    StreamingConfig,
    TrainConfig,
)
from ladder_cli.config.unread import refuse_unread_model
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluate.summary import INITIALISATIONS, RUNS
from ladder_cli.generate.backbones import Backbones, SharedBackbone
from ladder_cli.generate.engine import Engine
from ladder_cli.generate.registry import ENGINES, TRANSFORMERS
from ladder_cli.nn.adapter import AdapterFolder
from ladder_cli.run.directory import OUTPUTS, RunDir, match_folders, pattern_name, read_json, safe_name


@dataclass(frozen=True)
class Target:
    """One set of weights, and where its results go.

    Attributes:
        identity: of the weights; samples of other weights are never mixed in.
        engine: answers with them; they are loaded when it is first asked.
        turn: targets that share what is in memory have the same: a backbone, and the kind of adapter on it.
        asks_as_told: the instruction was given on the command line, so that it also stands under label tasks.
        run: its run directory; None for a backbone alone.
    """

    name: str
    renderer: PromptRenderer
    identity: str
    folder: Path
    engine: Engine
    turn: tuple[int, str | None]
    asks_as_told: bool = True
    run: Path | None = None

    def renderer_for(self, benchmark: BenchmarkConfig) -> PromptRenderer:
        """Label tasks bring their own instruction with the question (conf/data: `instruction: ''`)."""
        if benchmark.kind is BenchmarkKind.LABEL and not self.asks_as_told:
            return PromptRenderer(self.renderer.tokenizer, "", self.renderer.date)
        return self.renderer


@dataclass(frozen=True)
class Experiment:
    """Runs that differ in nothing but their seed, on the same weights and rows; where there are several, `folder` gets
    their common summary.
    """

    name: str
    folder: Path
    targets: list[Target]

    @property
    def differ_in(self) -> str:
        """What the seed decided: first weights alone where all runs had one order of the rows, and say so."""
        orders = {RunDir(target.run).order_of_seed() if target.run is not None else None for target in self.targets}
        return INITIALISATIONS if len(orders) == 1 and None not in orders else RUNS


def find_experiments(config: EvaluateConfig, overrides: list[str]) -> list[Experiment]:
    """What the config names; no weights are read yet.

    Raises:
        UserError: if a run is missing, unfinished, damaged, or was trained under another prompt.
    """
    backbones = Backbones(config.hardware.device, config.trunk)
    if config.run is None:
        target = _backbone_alone(config, overrides, backbones)
        return [Experiment(target.name, target.folder, [target])]
    runs = find_runs(config.run)
    names = _names(runs)
    groups: dict[str, list[RunDir]] = {}
    for run in runs:
        groups.setdefault(run.experiment(), []).append(run)
    base = Path(config.output_dir) if config.output_dir is not None else OUTPUTS / f"eval-{pattern_name(config.run)}"
    experiments: list[Experiment] = []
    for key, members in groups.items():
        targets = [
            _trained(config, overrides, backbones, run, names[run.path], several=len(runs) > 1) for run in members
        ]
        alike = os.path.commonprefix([run.path.name for run in members])  # noqa: RUF071  (characters are meant)
        name = re.sub(r"[,_-]?(seed=?)?\d*$", "", alike) or members[0].path.name
        folder = base if len(groups) == 1 else base / f"{name},runs={len(members)}"
        if any(folder == other.folder for other in experiments):
            # Names that are cut alike do not make one experiment of two.
            name = safe_name(name, exact=key)
            folder = base / f"{name},runs={len(members)}"
        experiments.append(Experiment(f"{name} ({len(members)} runs)", folder, targets))
    return experiments


def in_turns(experiments: Iterable[Experiment]) -> list[Experiment]:
    """The experiments in the order of least loading: those that share a backbone and a kind of adapter together."""
    turns: dict[tuple[int, str | None], list[Experiment]] = {}
    for experiment in experiments:
        turns.setdefault(experiment.targets[0].turn, []).append(experiment)
    first = {backbone: number for number, (backbone, _) in reversed(list(enumerate(turns)))}
    ordered = sorted(turns, key=lambda turn: first[turn[0]])
    return [experiment for turn in ordered for experiment in turns[turn]]


def find_runs(pattern: str) -> list[RunDir]:
    """Run directories by path or glob, without those that were set aside (`NAME.old-1`).

    Raises:
        UserError: if there is none.
    """
    found, _ = match_folders(pattern)
    runs = [RunDir(path) for path in found if RunDir(path).config.is_file()]
    if not runs:
        raise UserError(f"run={pattern} names no run directory (a folder with config.yaml).")
    return runs


def _names(runs: list[RunDir]) -> dict[Path, str]:
    """A name for each run: that of its folder, and as many of those above it as tell the runs apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {run.path: name for run, name in zip(runs, names, strict=True)}


def _backbone_alone(config: EvaluateConfig, overrides: list[str], backbones: Backbones) -> Target:
    backbone = backbones.of(config.model)
    renderer = PromptRenderer(backbone.tokenizer, config.instruction)
    return Target(
        name=config.model.name,
        renderer=renderer,
        identity=f"{_weights(config.model, backbone)} {_precision(config.model, backbones.device.type, config.trunk)}",
        folder=Path(config.output_dir or OUTPUTS / safe_name(f"eval-{config.model.name}")),
        engine=ENGINES[TRANSFORMERS](backbone.bare, renderer, backbone.limits, config.model.name),
        turn=(id(backbone), None),
        asks_as_told=_given(overrides, "instruction"),
    )


def _trained(
    config: EvaluateConfig, overrides: list[str], backbones: Backbones, run: RunDir, name: str, several: bool
) -> Target:
    trained: TrainConfig = parse(run.read_config(), TrainConfig)
    model_config = _with_overrides(trained.model, config.model, overrides)
    if not AdapterFolder.has_weights(run.adapter):
        raise UserError(f"{run.path} has no adapter: its training is '{run.status()}'; continue it first.")
    # What is damaged shall be refused before anything is loaded or written.
    adapter = AdapterFolder.open(run.adapter)
    backbone = backbones.of(model_config)
    renderer = _trained_renderer(config, overrides, run, backbone.tokenizer)
    _refuse_other_backbone(config, run, backbone.identity)
    folder = run.evaluation
    if config.output_dir is not None:
        folder = Path(config.output_dir) / safe_name(name) if several else Path(config.output_dir)
    weights = f"{adapter.digest[:16]} on {_weights(model_config, backbone)}"
    return Target(
        name=name,
        renderer=renderer,
        identity=f"{weights} {_precision(model_config, backbones.device.type, config.trunk)}",
        folder=folder,
        engine=ENGINES[TRANSFORMERS](lambda: backbone.with_adapter(adapter), renderer, backbone.limits, name),
        turn=(id(backbone), adapter.loader),
        run=run.path,
    )


def _trained_renderer(
    config: EvaluateConfig, overrides: list[str], run: RunDir, tokenizer: PreTrainedTokenizerBase
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
    instruction = config.instruction if _given(overrides, "instruction") else record["instruction"]
    renderer = PromptRenderer(tokenizer, instruction, known["date"])
    if renderer.is_rendering_of(record) or config.allow_prompt_mismatch:
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


def _weights(model: ModelConfig, backbone: SharedBackbone) -> str:
    """What is known of the backbone's weights: their identity, or of a model of the hub that is not here its place."""
    return backbone.identity if backbone.identity is not None else f"{model.location} {model.revision}"


def _refuse_other_backbone(config: EvaluateConfig, run: RunDir, backbone: str | None) -> None:
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
        if config.allow_other_backbone:
            print(f"warning: {run.path} is evaluated on other weights than it was trained on.", file=sys.stderr)
            return
        raise UserError(
            f"{run.path} was trained on other weights (of '{record.get('name')}', {trained_on}) than this backbone's "
            f"({backbone}): give the folder of those as model.path=DIR, or say allow_other_backbone=true."
        )


def _precision(model: ModelConfig, device: str, streaming: StreamingConfig) -> str:
    """What decides the backbone's arithmetic: `auto` is another type on a CPU than on a GPU, and 4-bit layers that are
    streamed are not packed for the CPU.
    """
    dtype = model.dtype if model.dtype is not Dtype.AUTO else f"auto on {device}"
    packable = model.quantization is Quantization.NF4 and device == "cpu"
    stored = ", as stored" if packable and streaming.residency is not Residency.RESIDENT else ""
    return f"{model.quantization}, head {model.head_quantization}, {dtype}{stored}"


def _with_overrides(recorded: ModelConfig, given: ModelConfig, overrides: list[str]) -> ModelConfig:
    """The run's model, with the single options that were given on the command line."""
    if _given(overrides, "model"):
        raise UserError("run= brings its own model: drop model=NAME (model.path=DIR may be given where it has moved).")
    options = [name for name in given_options(overrides) if name.startswith("model.")]
    names = dict.fromkeys(name.split(".")[1] for name in options)
    # A run directory may be a stranger's: code from the hub runs only where this command line asks for it.
    recorded = replace(recorded, trust_remote_code=given.trust_remote_code)
    model = replace(recorded, **{name: getattr(given, name) for name in names})
    refuse_unread_model(model, options)
    return model


def _given(overrides: list[str], option: str) -> bool:
    return option in given_options(overrides)
