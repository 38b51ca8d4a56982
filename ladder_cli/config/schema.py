"""The schema of a training run: one dataclass per Hydra group, each option with its help, unit and bounds.

YAML in `conf/` gives the values, these classes say which keys exist, of what type, and what is possible. Nothing
here imports torch: a wrong option must be answered in well under two seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import MISSING

from ladder_cli.config.choices import (
    CacheCommand,
    Device,
    Dtype,
    Learn,
    OnMisfit,
    Optimizer,
    Quantization,
    Residency,
    RowFormat,
    Tracker,
    Truncation,
    WandbMode,
)
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.optimization import OptimizationConfig
from ladder_cli.config.options import expanded, incidental, option, place, settle
from ladder_cli.config.trunk import TrunkConfig
from ladder_cli.config.validation import one_of
from ladder_cli.errors import UserError

OUTPUTS = Path("outputs")  # where results go that were given no other place
# What a chat template that prints the date is told: prompts must not change with the clock.
DEFAULT_DATE = "2026-01-01"

# Options that have moved, and their names now. A config.yaml that was written before holds both, with one value.
MOVED: Mapping[str, str] = MappingProxyType(
    {
        "hardware.micro_batch_size": "train.micro_batch_size",
        "hardware.eval_batch_size": "decode.batch_size",
        "hardware.loss_chunk": "train.loss_chunk",
        "hardware.int8_taps": "method.int8_taps",
        "hardware.head_quantization": "model.head_quantization",
        "hardware.embeddings_on_cpu": "model.embeddings_on_cpu",
        "hardware.mlp_chunk": "model.mlp_chunk",
    }
)

# Settings that came later, and what was done before: a config.yaml without them was written then.
ADDED: Mapping[str, Any] = MappingProxyType(
    {
        "trunk.cache_format": "exact",
        "objective.name": "sft",
        "objective.learning_rate_scale": 1.0,
        "objective.loss": "sigmoid",
        "objective.beta": 0.1,
        "objective.label_smoothing": 0.0,
        "objective.reward": "grader",
        "objective.group": 8,
        "objective.max_new_tokens": 256,
        "objective.temperature": 1.0,
        "objective.sample_batch": None,
        "objective.engine": "transformers",
        "objective.sampler_cap": 2.0,
        "objective.iterations": 1,
        "objective.clip": 0.2,
        "objective.clip_high": 0.28,
        "objective.divide_by_std": False,
        "objective.grade_seconds": 5.0,
        "data.gold": None,
        "data.chosen": "chosen",
        "data.rejected": "rejected",
    }
)


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = place(MISSING, "name of the model, of its file in conf/model")
    hub_id: str | None = place(None, "repository on the model hub")
    path: str | None = place(None, "local folder in its place, or `builtin:NAME` for a model of this package")
    revision: str | None = place(None, "branch, tag or commit on the hub")
    quantization: Quantization = option(Quantization.NONE, "how the layers' weights are stored")
    dtype: Dtype = option(Dtype.AUTO, "type to compute in; auto: bfloat16 on a GPU, the checkpoint's own on a CPU")
    attention: str = option("sdpa", "Transformers' attention implementation")
    learning_rate_scale: float = option(1.0, "times the method's rate: narrow models take larger steps", at_least=0.0)
    side_reduction: int = option(16, "r that suits this width; `method.reduction` refers to it", at_least=1)
    default_data: str = incidental("s1k", "the data set that is trained on where `data` is not given")
    default_benchmarks: list[str] = incidental(lambda: ["math500"], "likewise where `benchmarks` is not")
    side_recompute: bool = option(
        True,
        "whether recomputing what learns pays (it does on wide backbones); `method.recompute` of ladders and "
        "`method.gradient_checkpointing` of a suffix refer to it",
    )
    trust_remote_code: bool = option(False, "run the code that a repository on the hub brings")
    head_quantization: Quantization = option(
        Quantization.NONE, "of the output head, which `quantization` leaves as it is"
    )
    embeddings_on_cpu: bool = option(False, "token embeddings stay in the host's memory")
    mlp_chunk: int | None = option(
        None, "what a feed-forward layer of the backbone sees at a time; null: all", unit="positions", at_least=1
    )
    # What is left out are Transformers' own defaults for that `model_type`, which change neither sizes nor memory.
    shape: dict[str, Any] = place(
        dict, "the architecture as its config.json gives it, so that a plan needs no download"
    )

    @property
    def location(self) -> str:
        """What `from_pretrained` is given: a folder, or a repository on the hub.

        Raises:
            UserError: if the folder does not exist, or neither folder nor repository is named.
        """
        if self.path is None:
            if self.hub_id is None:
                raise UserError(f"model={self.name} has no home on the hub: give its folder as model.path=DIR.")
            return self.hub_id
        scheme, _, builtin = self.path.partition("builtin:")
        folder = Path(__file__).parents[1] / "assets" / builtin if builtin and not scheme else Path(self.path)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model.path={self.path} is not a model folder (no config.json in it): give a folder "
                "that `save_pretrained` wrote, or leave it out to use the hub."
            )
        return str(folder)

    def __post_init__(self) -> None:
        self.path = expanded(self.path)
        settle(self, "model.")


@dataclass
class DataConfig:
    """A training set and how it becomes tokens."""

    name: str = option(MISSING, "name of the set")
    format: RowFormat | None = option(None, "what a row is; null: chat where `messages` is given, else pairs")
    hub_id: str | None = place(None, "data set on the hub; null: one's own file, a mirror, or generated")
    hub_config: str | None = place(None, "named subset on the hub")
    split: str = place("train", "split of the set")
    path: str | None = place(None, "one's own file: JSONL, a JSON array, CSV or parquet, each also .gz (data=jsonl)")
    prompt: str | None = option(
        None, "column of the question, or a template over columns: '{instruction}\\n\\n{input?}'"
    )
    completion: str | None = option(None, "column of the answer, or a template")
    targets: dict[str, str] = option(dict, "completions that a set offers: name -> column or template")
    target: str | None = option(None, "which of `targets` is learned")
    chosen: str = option("chosen", "of a preference: column of the preferred answer; `prompt` null is a column prompt")
    rejected: str = option("rejected", "of a preference: column of the other answer")
    gold: str | None = option(
        None, "column of the right answer, for objective=grpo; null: it is read off the completion"
    )
    messages: str | None = option(None, "column of chats")
    learn: Learn = option(Learn.ALL, "of a chat: every turn of the assistant, or the last one")
    label: str | None = option(None, "column of the label, a number from 0 on")
    labels: list[str] = option(list, "the word for each label")
    group: str | None = option(None, "column whose equal values stay on one side of the validation split")
    train_samples: int | None = option(
        None, "to train on; null: all that are left after validation", unit="rows", at_least=1
    )
    validation_samples: int = option(200, "held out for the validation loss", unit="rows", at_least=1)
    max_length: int = option(2048, "of prompt and completion together", unit="tokens", at_least=8)
    truncation: Truncation = option(Truncation.DROP, "what happens to a longer example; left keeps its end")
    packing: bool = option(False, "fill rows up to max_length with several examples that do not see each other")
    decontaminate: bool = option(False, "leave out training questions that stand in a benchmark")
    cache: bool = incidental(True, "save tokenised rows on disk, under outputs/.cache")
    instruction: str = option(MISSING, "stands after every question, in training and evaluation alike")
    date: str = option(DEFAULT_DATE, "the day that a chat template prints, if it prints one")

    def __post_init__(self) -> None:
        self.path = expanded(self.path)
        settle(self, "data.")
        # A set without `targets` reads no target, as those of older runs, which all recorded one.
        if self.targets:
            one_of("data.target", str(self.target), tuple(self.targets))
        try:
            date.fromisoformat(self.date)
        except ValueError as error:
            raise UserError(f"data.date={self.date} is not a day: write it as {DEFAULT_DATE}.") from error


@dataclass
class HardwareConfig:
    """The machine. What a machine asks of model, method and training are options of those (conf/hardware sets them)."""

    name: str = incidental(MISSING, "name of the machine, of its file in conf/hardware")
    device: Device = option(Device.AUTO, "where to compute; auto: the first GPU (NVIDIA or AMD), else the CPU")
    memory_gb: float | None = incidental(
        None, "memory of the card; null: ask the device", unit="10^9 bytes", at_least=0.0
    )
    tflops: float | None = incidental(
        None, "matrix products that the device reaches, for plans of streamed layers; null: measured",
        unit="10^12 FLOPs a second", at_least=0.0,
    )  # fmt: skip
    host_gb_s: float | None = incidental(
        None, "copies from the host's memory to the device, likewise", unit="10^9 bytes a second", at_least=0.0
    )
    disk_gb_s: float | None = incidental(
        None, "reading files, likewise; null: as host_gb_s", unit="10^9 bytes a second", at_least=0.0
    )
    workers: int = incidental(0, "data loader processes", at_least=0)
    shard_backbone: bool = incidental(False, "several processes hold the frozen layers together, each its shards")

    def __post_init__(self) -> None:
        settle(self, "hardware.")


def refuse_untried(hardware: HardwareConfig, model: ModelConfig, wanted: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse what nobody has seen to work on Apple's and Intel's GPUs.

    Args:
        wanted: further options by name, each with its value and the value that does work there.

    Raises:
        UserError: for the first of them.
    """
    if hardware.device not in (Device.MPS, Device.XPU):
        return
    kernels = {
        "model.quantization": (model.quantization, Quantization.NONE),
        "model.head_quantization": (model.head_quantization, Quantization.NONE),
        "hardware.shard_backbone": (hardware.shard_backbone, False),
    }
    for name, (value, works) in {**kernels, **wanted}.items():
        if value != works:
            raise UserError(
                f"{name}={value} is not known to work on hardware.device={hardware.device} (bitsandbytes, streaming "
                f"and sharding are of CUDA): give {name}={str(works).lower()}."
            )


@dataclass
class TrackingConfig:
    """Trackers beside `metrics.jsonl`, which is always written."""

    name: Tracker = option(Tracker.NONE, "what shows the run elsewhere; `tracking=NAME` chooses it")
    wandb: WandbMode | None = option(
        None, "where Weights & Biases sends it, which offline or online also chooses; null: online"
    )
    project: str = option("ladder-cli", "the project or experiment there")

    def __post_init__(self) -> None:
        settle(self, "tracking.")
        sends = self.wandb in (WandbMode.OFFLINE, WandbMode.ONLINE)
        if self.name is Tracker.NONE and sends:
            self.name = Tracker.WANDB
        if self.wandb is not None and sends != (self.name is Tracker.WANDB):
            raise UserError(
                f"tracking.wandb={self.wandb} contradicts tracking.name={self.name}: leave one of the two out."
            )
        if self.wandb is None:
            self.wandb = WandbMode.ONLINE if self.name is Tracker.WANDB else WandbMode.OFF


@dataclass
class TrainConfig:
    """Everything `ladder-train` can be told."""

    model: ModelConfig = option(ModelConfig, "the backbone")
    method: Any = option(MISSING, "what is trained: one of METHOD_KINDS (config/methods.py)")
    data: DataConfig = option(DataConfig, "on what")
    hardware: HardwareConfig = option(HardwareConfig, "where")
    trunk: TrunkConfig = option(TrunkConfig, "how the frozen backbone is read")
    objective: ObjectiveConfig = option(ObjectiveConfig, "what is minimised")
    train: OptimizationConfig = option(OptimizationConfig, "the training run itself")
    tracking: TrackingConfig = incidental(TrackingConfig, "trackers")
    seed: int = option(0, "of first weights, data order and held-out rows", at_least=0, at_most=2**32 - 1)
    output_dir: str | None = incidental(None, "the run directory; null: outputs/<run name>")
    data_dir: str | None = place(None, "local mirror, DIR/<name>/<split>.jsonl; null: the hub")
    preflight: OnMisfit = incidental(OnMisfit.REFUSE, "what happens if a step cannot fit the memory")
    prepare: bool = incidental(
        False, "make the files that a streamed backbone's layers come from, in place of training"
    )
    cache: CacheCommand | None = incidental(
        None,
        "in place of training: list what caches of taps and of layer files hold on disk, or prune one of them to "
        "trunk.cache_limit_gb",
    )
    dry_run: bool = incidental(False, "compose, load the data, print and write the plan, train nothing")
    resume: bool = incidental(
        True, "continue an unfinished run of the same configuration; false sets an existing one aside and starts over"
    )

    def __post_init__(self) -> None:
        self.output_dir, self.data_dir = expanded(self.output_dir), expanded(self.data_dir)
        settle(self, "")
        refuse_untried(self.hardware, self.model, {"trunk.residency": (self.trunk.residency, Residency.RESIDENT)})
        if self.train.optimizer in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT):
            wanted = {"train.optimizer": (self.train.optimizer, Optimizer.ADAMW)}
            refuse_untried(self.hardware, self.model, wanted)

    @property
    def peak_learning_rate(self) -> float:
        """The rate that is used: `train.learning_rate`, or what method and model suggest."""
        given = self.train.learning_rate
        if given is not None:
            return given
        return self.method.learning_rate * self.model.learning_rate_scale * self.objective.learning_rate_scale
