"""Options that are given on the command line and that nothing reads: each is a mistake, and is told as one.

An option may be set by a preset without being read; who types it expects it to act. What a training set reads is for
`data/formats.py` to say. Imports no torch.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ladder_cli.config.choices import CacheMode, ObjectiveKind, Quantization, Residency, Scheduler, Tracker
from ladder_cli.config.methods import SUGGESTED
from ladder_cli.config.options import told_of
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.errors import UserError
from ladder_cli.ranks import processes

# What `prepare=true` reads: groups, and single options.
_PREPARING = ("prepare", "model", "hardware", "trunk.layer_files", "trunk.residency")
_GROUPS = ("model", "method", "data", "hardware", "trunk", "objective", "train", "tracking")
Unread = Iterator[tuple[str, str]]  # an option, and why nothing reads it and what would


def refuse_unread(config: TrainConfig, given: list[str], reads_mirror: bool) -> None:
    """Refuse options of a training, other than those of its data set, that were given and that nothing reads.

    Args:
        given: as `compose.given_options` gives them.
        reads_mirror: the data set lies in a mirror (`data_dir`), or on the hub.

    Raises:
        UserError: naming the option, why it does not act, and what would read it.
    """
    if config.prepare:
        for name in given:
            if name.partition(".")[0] not in _PREPARING and name not in _PREPARING:
                raise UserError(
                    f"{name} is given, but nothing reads it: prepare=true makes layer files and trains nothing."
                )
    _refuse(_unread(config, reads_mirror), _values(config), given)


def refuse_unread_model(model: ModelConfig, given: list[str]) -> None:
    """Refuse options of a backbone that were given and that nothing reads.

    Raises:
        UserError: naming the option, why it does not act, and what would read it.
    """
    values = {f"model.{item.name}": getattr(model, item.name) for item in fields(model)}
    _refuse(_unread_of_model(model), values, given)


def _refuse(unread: Unread, values: dict[str, Any], given: list[str]) -> None:
    for option, why in unread:
        for name in given:
            if (name == option or name.startswith(f"{option}.")) and values.get(option) is not None:
                raise UserError(f"{name} is given, but nothing reads it: {why}.")


def _values(config: TrainConfig) -> dict[str, Any]:
    """The value of every option of the groups, by its dotted name."""
    groups = {name: getattr(config, name) for name in _GROUPS}
    values = {
        f"{group}.{item.name}": getattr(typed, item.name) for group, typed in groups.items() for item in fields(typed)
    }
    return values | {item.name: getattr(config, item.name) for item in fields(config)}


def _unread(config: TrainConfig, reads_mirror: bool) -> Unread:
    yield from _unread_of_model(config.model)
    yield from _unread_of_method(config)
    yield from _unread_of_objective(config)
    yield from _unread_of_trunk(config)
    yield from _unread_of_training(config)
    if not config.prepare:
        yield from _unread_of_streaming(config.trunk, _cut_from_files(config))
    values = _values(config)
    for option, reader in SUGGESTED.items():
        if (own := config.method.takes_over.get(option)) is None:
            yield option, f"method={config.method.name} has no {reader}, which takes it over"
        elif values[own] != values[option]:
            yield option, f"{own}={values[own]} takes its place; leave one out"
    if config.tracking.name is Tracker.NONE:
        yield "tracking.project", "nothing tracks the run; tracking=wandb, trackio or mlflow reads it"
    if config.tracking.name is Tracker.TENSORBOARD:
        yield "tracking.project", "TensorBoard knows no projects: it reads the folder tensorboard/ of each run"
    if not (reads_mirror or config.data.decontaminate or config.dry_run):
        yield "data_dir", f"data={config.data.name} is in no mirror; choose the set that is (data=NAME)"


def _unread_of_model(model: ModelConfig) -> Unread:
    if model.path is not None:
        for name in ("hub_id", "revision", "shape"):
            yield (
                f"model.{name}",
                f"the folder model.path={model.path} takes the place of the hub; choose a model of the hub "
                "(model=NAME), or say model.path=null",
            )


def _unread_of_group(group: str, typed: Any) -> Unread:
    """What other options of its own group leave unread."""
    for item in fields(typed):
        if needs := told_of(item).needs:
            option, readers = needs[0], told_of(item).readers
            if (chosen := getattr(typed, option)) not in readers:
                values = " or ".join(readers)
                yield f"{group}.{item.name}", f"{group}.{option} is {chosen}; {group}.{option}={values} reads it"
        if unless := told_of(item).unless:
            option, value = unless
            if getattr(typed, option) == value:
                yield f"{group}.{item.name}", f"{group}.{option} is {value}; another value reads it"


def _unread_of_method(config: TrainConfig) -> Unread:
    yield from _unread_of_group("method", config.method)
    if config.train.learning_rate is not None:
        for option in ("method.learning_rate", "model.learning_rate_scale", "objective.learning_rate_scale"):
            yield option, f"train.learning_rate={config.train.learning_rate} takes its place; leave one out"


def _unread_of_objective(config: TrainConfig) -> Unread:
    yield from _unread_of_group("objective", config.objective)
    if config.objective.name is not ObjectiveKind.DPO:
        yield "objective.label_smoothing", f"objective.name is {config.objective.name}; objective=dpo reads it"
    if not config.objective.samples:
        for name in ("objective.grade_seconds", "data.gold"):
            yield name, f"objective.name is {config.objective.name}; objective=grpo reads it"
    elif config.data.gold is not None:
        for name in ("completion", "target"):
            yield f"data.{name}", f"data.gold={config.data.gold} has the right answers; leave one out"


def _cut_from_files(config: TrainConfig) -> bool:
    """Whether the processes that share the layers out read them from layer files: quantised ones, they do."""
    return config.hardware.shard_backbone and config.model.quantization is not Quantization.NONE


def _unread_of_streaming(trunk: StreamingConfig, from_files: bool = False) -> Unread:
    """`from_files`: layers that do not stream come out of layer files all the same."""
    if trunk.residency is Residency.RESIDENT:
        for name in ("window",) if from_files else ("window", "layer_files"):
            yield f"trunk.{name}", "trunk.residency is resident; trunk.residency=disk, host or auto reads it"
        for name in ("tflops", "host_gb_s", "disk_gb_s"):
            yield f"hardware.{name}", "trunk.residency is resident; trunk.residency=disk, host or auto reads it"


def _unread_of_trunk(config: TrainConfig) -> Unread:
    trunk = config.trunk
    if not config.method.reads_taps:
        for item in fields(trunk):
            # `auto` is for the methods of a sweep that can.
            read = getattr(trunk, item.name) in (CacheMode.AUTO, Residency.RESIDENT)
            if not read and not (item.name == "layer_files" and _cut_from_files(config)):
                yield (
                    f"trunk.{item.name}",
                    f"method={config.method.name} lets gradients pass through the whole backbone, and reads no taps",
                )
    elif trunk.cache is CacheMode.OFF and config.cache is None:
        for name in ("cache_format", "cache_dir", "cache_limit_gb"):
            yield f"trunk.{name}", "trunk.cache is off; trunk.cache=disk reads it"
    elif trunk.cache is CacheMode.MEMORY:
        yield "trunk.cache_dir", "trunk.cache=memory writes no file; trunk.cache=disk reads it"


def _unread_of_training(config: TrainConfig) -> Unread:
    train = config.train
    if train.max_steps is not None:
        yield "train.epochs", f"train.max_steps={train.max_steps} ends the run; leave one out (train.max_steps=null)"
    if train.gradient_accumulation is not None:
        batch = train.micro_batch_size * train.gradient_accumulation * processes()
        if batch != train.global_batch_size:
            yield (
                "train.global_batch_size",
                f"train.gradient_accumulation={train.gradient_accumulation} x micro_batch_size "
                f"{train.micro_batch_size} x {processes()} process(es) makes steps of {batch} rows; leave one out",
            )
    if train.scheduler is Scheduler.CONSTANT and train.warmup_ratio > 0:
        yield "train.warmup_ratio", "train.scheduler is constant; train.scheduler=constant_with_warmup reads it"
