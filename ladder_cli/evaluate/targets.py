"""What is evaluated: a backbone alone, or trained runs, of one experiment or of several."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ladder_cli.config.choices import BenchmarkKind, Dtype, EngineKind, Quantization, Residency
from ladder_cli.config.compose import given_options
from ladder_cli.config.evaluation import BenchmarkConfig, EvaluateConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.evaluate.summary import INITIALISATIONS, RUNS
from ladder_cli.generate.backbones import Backbones, SharedBackbone
from ladder_cli.generate.engine import Engine
from ladder_cli.generate.registry import ENGINES, TRANSFORMERS, VLLM
from ladder_cli.generate.trained import Permission, TrainedRun
from ladder_cli.run.directory import OUTPUTS, RunDir, find_runs, pattern_name, run_names, safe_name
from ladder_cli.serve.temporary import served_backbone, served_run


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
    names = run_names(runs)
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


def _backbone_alone(config: EvaluateConfig, overrides: list[str], backbones: Backbones) -> Target:
    backbone = backbones.of(config.model)
    renderer = PromptRenderer(backbone.tokenizer, config.instruction)
    return Target(
        name=config.model.name,
        renderer=renderer,
        identity=f"{_weights(config.model, backbone)} {_precision(config.model, backbones.device.type, config.trunk)}",
        folder=Path(config.output_dir or OUTPUTS / safe_name(f"eval-{config.model.name}")),
        engine=_BACKBONE_ENGINES[config.engine](backbone, config.model, renderer, backbones.device),
        turn=(id(backbone), None),
        asks_as_told=_given(overrides, "instruction"),
    )


def _trained(
    config: EvaluateConfig, overrides: list[str], backbones: Backbones, run: RunDir, name: str, several: bool
) -> Target:
    instruction = config.instruction if _given(overrides, "instruction") else None
    permission = Permission(config.allow_prompt_mismatch, config.allow_other_backbone)
    trained = TrainedRun.open(run, backbones, config.model, overrides, instruction, permission)
    adapter, backbone, renderer = trained.adapter, trained.backbone, trained.renderer
    folder = run.evaluation
    if config.output_dir is not None:
        folder = Path(config.output_dir) / safe_name(name) if several else Path(config.output_dir)
    weights = f"{adapter.digest[:16]} on {_weights(trained.model, backbone)}"
    return Target(
        name=name,
        renderer=renderer,
        identity=f"{weights} {_precision(trained.model, backbones.device.type, config.trunk)}",
        folder=folder,
        engine=_TRAINED_ENGINES[config.engine](trained, name, backbones.device),
        turn=(id(backbone), adapter.loader),
        run=run.path,
    )


def _by_transformers(trained: TrainedRun, name: str, device: torch.device) -> Engine:
    backbone = trained.backbone
    return ENGINES[TRANSFORMERS](
        lambda: backbone.with_adapter(trained.adapter), trained.renderer, backbone.limits, name
    )


def _by_vllm(trained: TrainedRun, name: str, device: torch.device) -> Engine:
    limits = trained.backbone.limits
    return ENGINES[VLLM](lambda: served_run(trained, device), trained.renderer, limits, name, device)


def _backbone_by_transformers(
    backbone: SharedBackbone, model: ModelConfig, renderer: PromptRenderer, device: torch.device
) -> Engine:
    return ENGINES[TRANSFORMERS](backbone.bare, renderer, backbone.limits, model.name)


def _backbone_by_vllm(
    backbone: SharedBackbone, model: ModelConfig, renderer: PromptRenderer, device: torch.device
) -> Engine:
    return ENGINES[VLLM](lambda: served_backbone(model, device), renderer, backbone.limits, model.name, device)


_TRAINED_ENGINES: dict[EngineKind, Callable[[TrainedRun, str, torch.device], Engine]] = {
    EngineKind.TRANSFORMERS: _by_transformers,
    EngineKind.VLLM: _by_vllm,
}
_BACKBONE_ENGINES: dict[EngineKind, Callable[[SharedBackbone, ModelConfig, PromptRenderer, torch.device], Engine]] = {
    EngineKind.TRANSFORMERS: _backbone_by_transformers,
    EngineKind.VLLM: _backbone_by_vllm,
}


def _weights(model: ModelConfig, backbone: SharedBackbone) -> str:
    """What is known of the backbone's weights: their identity, or of a model of the hub that is not here its place."""
    return backbone.identity if backbone.identity is not None else f"{model.location} {model.revision}"


def _precision(model: ModelConfig, device: str, streaming: StreamingConfig) -> str:
    """What decides the backbone's arithmetic: `auto` is another type on a CPU than on a GPU, and 4-bit layers that are
    streamed are not packed for the CPU.
    """
    dtype = model.dtype if model.dtype is not Dtype.AUTO else f"auto on {device}"
    packable = model.quantization is Quantization.NF4 and device == "cpu"
    stored = ", as stored" if packable and streaming.residency is not Residency.RESIDENT else ""
    return f"{model.quantization}, head {model.head_quantization}, {dtype}{stored}"


def _given(overrides: list[str], option: str) -> bool:
    return option in given_options(overrides)
