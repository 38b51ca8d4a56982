"""The schema of every configuration: one dataclass per Hydra group, with units and the values that make sense.

YAML in `conf/` gives the values, these classes say which keys exist, of what type, and what is possible. Nothing
here imports torch: a wrong option must be answered in well under two seconds.
"""

import os
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from ladder_cli.config.validation import at_least, between, one_of
from ladder_cli.errors import UserError

GOLD_RULES = ("expression", "physical", "several")


class RowFormat(StrEnum):
    """What a row of a training set is."""

    PAIRS = "pairs"  # a question and an answer, in named columns
    CHAT = "chat"  # a list of messages
    LABEL = "label"  # a question that a label word answers
    GENERATED = "generated"  # problems that this package makes itself


class Learn(StrEnum):
    """Which of the assistant's turns of a chat count for the loss."""

    ALL = "all"
    LAST = "last"


# What a chat template that prints the date is told: prompts must not change with the clock.
DEFAULT_DATE = "2026-01-01"


class Role(StrEnum):
    """What an option means for the identity of a run; an option without a role is a setting, and can change results."""

    INCIDENTAL = "incidental"  # changes no result: neither names a run nor keeps it from being continued
    PLACE = "place"  # says where or under what name content lies: names a run, but only the content is compared


def incidental(default: Any) -> Any:
    """A field that cannot change the result of a run."""
    return field(default=default, metadata={"role": Role.INCIDENTAL})


def place(default: Any) -> Any:
    """A field that says where content lies (weights, rows); what is there is compared by itself (identity.py)."""
    return field(default=default, metadata={"role": Role.PLACE})


def expanded(path: str | None) -> str | None:
    """A path with `~` and `~name` replaced; one whose owner is unknown stays as it is, and is then not found."""
    return path if path is None else os.path.expanduser(path)


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = place(MISSING)
    hub_id: str | None = place(None)  # repository on the model hub
    path: str | None = place(None)  # local folder in its place, or `builtin:NAME` for a model of this package
    revision: str | None = place(None)  # branch, tag or commit on the hub
    quantization: str = "none"
    dtype: str = "auto"  # auto: bfloat16 on a GPU, the checkpoint's own on a CPU
    attention: str = "sdpa"  # Transformers' attention implementation
    learning_rate_scale: float = 1.0  # narrow models take larger steps than the methods' rates
    side_reduction: int = 16  # r that suits this width: the side network is width / r; methods refer to it
    default_data: str = incidental("s1k")  # the data set that is trained on where `data` is not given
    default_benchmarks: list[str] = field(  # likewise where `benchmarks` is not
        default_factory=lambda: ["math500"], metadata={"role": Role.INCIDENTAL}
    )
    side_recompute: bool = True  # whether recomputing side layers pays: about 1% more arithmetic where r is large
    trust_remote_code: bool = False
    head_quantization: str = "none"  # of the output head; the backbone's own quantisation leaves it as it is
    embeddings_on_cpu: bool = False  # token embeddings stay in the host's memory
    mlp_chunk: int | None = None  # positions that a feed-forward layer of the backbone sees at a time; None: all
    # The architecture as its config.json gives it, so that a plan needs no download; what is left out are
    # Transformers' own defaults for that `model_type`, which change neither sizes nor memory.
    shape: dict[str, Any] = field(default_factory=dict, metadata={"role": Role.PLACE})

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
        one_of("model.quantization", self.quantization, ("none", "int8", "nf4"))
        one_of("model.head_quantization", self.head_quantization, ("none", "int8", "nf4"))
        at_least("model.mlp_chunk", self.mlp_chunk, 1)
        one_of("model.dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        at_least("model.side_reduction", self.side_reduction, 1)


@dataclass
class DataConfig:
    """A training set and how it becomes tokens."""

    name: str = MISSING
    format: str | None = None  # one of RowFormat; None: chat where `messages` is given, else pairs
    hub_id: str | None = place(None)  # data set on the hub; None: one's own file, a mirror, or generated
    hub_config: str | None = place(None)  # named subset on the hub
    split: str = place("train")
    path: str | None = place(None)  # one's own file: JSONL, a JSON array, CSV or parquet, each also .gz (data=jsonl)
    prompt: str | None = None  # column of the question, or a template over columns: '{instruction}\n\n{input?}'
    completion: str | None = None  # column of the answer, or a template
    targets: dict[str, str] = field(default_factory=dict)  # completions that a set offers: name -> column or template
    target: str | None = None  # which of `targets` is learned
    messages: str | None = None  # column of chats
    learn: str = "all"  # of a chat: every turn of the assistant, or the last one
    label: str | None = None  # column of the label, a number from 0 on
    labels: list[str] = field(default_factory=list)  # the word for each label
    group: str | None = None  # column whose equal values stay on one side of the validation split
    train_samples: int | None = None  # rows to train on; None: all that are left after validation
    validation_samples: int = 200  # rows held out for the validation loss
    max_length: int = 2048  # tokens of prompt and completion together
    truncation: str = "drop"  # what happens to a longer example
    packing: bool = False  # fill rows up to max_length with several examples that do not see each other
    decontaminate: bool = False  # leave out training questions that stand in a benchmark
    cache: bool = incidental(True)  # keep tokenised rows on disk, under outputs/.cache
    instruction: str = MISSING  # stands after every question, in training and evaluation alike
    date: str = DEFAULT_DATE  # the day that a chat template prints, if it prints one

    def __post_init__(self) -> None:
        self.path = expanded(self.path)
        if self.format is not None:
            one_of("data.format", self.format, tuple(RowFormat))
        one_of("data.learn", self.learn, tuple(Learn))
        # A set without `targets` reads no target, as those of older runs, which all recorded one.
        if self.targets:
            one_of("data.target", str(self.target), tuple(self.targets))
        try:
            date.fromisoformat(self.date)
        except ValueError as error:
            raise UserError(f"data.date={self.date} is not a day: write it as {DEFAULT_DATE}.") from error
        one_of("data.truncation", self.truncation, ("drop", "left", "error"))
        at_least("data.train_samples", self.train_samples, 1)
        at_least("data.validation_samples", self.validation_samples, 1)
        at_least("data.max_length", self.max_length, 8)


@dataclass
class HardwareConfig:
    """The machine."""

    name: str = incidental(MISSING)
    device: str = "auto"
    memory_gb: float | None = incidental(None)  # memory of the card in 10^9 bytes; None: ask the device
    micro_batch_size: int = 4  # rows in one forward pass; `train.micro_batch_size` refers to it
    eval_batch_size: int | None = incidental(None)  # `decode.batch_size` refers to it; None: as the memory allows
    workers: int = incidental(0)  # data loader processes
    shard_backbone: bool = incidental(False)  # several processes hold the frozen layers together, each a share
    # What settings of model, method and training refer to; each costs time or exactness (docs/memory.md).
    loss_chunk: int = 512
    int8_taps: bool = False
    head_quantization: str = "none"
    embeddings_on_cpu: bool = False
    mlp_chunk: int | None = None

    def __post_init__(self) -> None:
        one_of("hardware.device", self.device, ("auto", "cpu", "cuda"))
        at_least("hardware.micro_batch_size", self.micro_batch_size, 1)
        at_least("hardware.eval_batch_size", self.eval_batch_size, 1)
        at_least("hardware.workers", self.workers, 0)


@dataclass
class OptimizationConfig:
    """The training run itself (the key `train`)."""

    epochs: float = 1.0
    max_steps: int | None = None  # optimizer steps; None: as many as the epochs need
    global_batch_size: int = 16  # rows per optimizer step over all processes; belongs to the experiment
    micro_batch_size: int = 4  # rows per forward pass and process; belongs to the hardware
    gradient_accumulation: int | None = None  # None: derived from the two above
    learning_rate: float | None = None  # peak; None: the method's, times the model's `learning_rate_scale`
    scheduler: str = "cosine"
    warmup_ratio: float = 0.1  # share of all steps
    optimizer: str = "auto"  # auto: 8-bit AdamW on a GPU, AdamW elsewhere
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0  # 0: no clipping
    evaluations: int = 5  # validation losses and checkpoints over the run
    early_stopping: int | None = None  # evaluations without improvement before stopping; None: never
    logging_steps: int = incidental(10)
    loss_chunk: int = 512  # counted tokens whose logits exist at the same time
    compile: bool = False  # layers through torch.compile: takes a minute at the start, and rounds differently

    def __post_init__(self) -> None:
        at_least("train.epochs", self.epochs, 0.0)
        if self.epochs == 0 and self.max_steps is None:
            raise UserError("train.epochs=0 trains nothing: give the passes over the rows, or train.max_steps.")
        at_least("train.max_steps", self.max_steps, 1)
        for name in ("global_batch_size", "micro_batch_size", "evaluations", "logging_steps", "loss_chunk"):
            at_least(f"train.{name}", getattr(self, name), 1)
        at_least("train.gradient_accumulation", self.gradient_accumulation, 1)
        at_least("train.early_stopping", self.early_stopping, 1)
        if self.learning_rate is not None:
            between("train.learning_rate", self.learning_rate, 0.0, 1.0)
        between("train.warmup_ratio", self.warmup_ratio, 0.0, 1.0)
        between("train.weight_decay", self.weight_decay, 0.0, 1.0)
        at_least("train.max_grad_norm", self.max_grad_norm, 0.0)
        one_of("train.scheduler", self.scheduler, ("cosine", "linear", "constant", "constant_with_warmup"))
        one_of("train.optimizer", self.optimizer, ("auto", "adamw", "adamw_8bit", "paged_adamw_8bit"))

    def accumulation(self, processes: int) -> int:
        """Micro-batches per optimizer step.

        Raises:
            UserError: if the global batch cannot be cut into micro-batches of this size.
        """
        if self.gradient_accumulation is not None:
            return self.gradient_accumulation
        rows = self.micro_batch_size * processes
        if self.global_batch_size % rows:
            raise UserError(
                f"train.global_batch_size={self.global_batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {processes} process(es): change train.micro_batch_size, or give "
                "train.gradient_accumulation yourself."
            )
        return self.global_batch_size // rows


@dataclass
class TrackingConfig:
    """Trackers beside `metrics.jsonl`, which is always written."""

    wandb: str = "off"
    project: str = "ladder-cli"

    def __post_init__(self) -> None:
        one_of("tracking.wandb", self.wandb, ("off", "offline", "online"))


@dataclass
class TrainConfig:
    """Everything `ladder-train` can be told."""

    model: ModelConfig = field(default_factory=ModelConfig)
    method: Any = MISSING  # one of METHOD_KINDS (method_config.py)
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    train: OptimizationConfig = field(default_factory=OptimizationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig, metadata={"role": Role.INCIDENTAL})
    seed: int = 0
    output_dir: str | None = incidental(None)  # None: outputs/<run name>
    data_dir: str | None = place(None)  # local mirror of data sets; None: the hub
    preflight: str = incidental("refuse")  # what happens if a step cannot fit the memory: refuse, or warn
    dry_run: bool = incidental(False)  # compose, load the data, print the plan, train nothing
    resume: bool = incidental(True)  # continue an unfinished run of the same configuration

    def __post_init__(self) -> None:
        self.output_dir, self.data_dir = expanded(self.output_dir), expanded(self.data_dir)
        between("seed", self.seed, 0, 2**32 - 1)
        one_of("preflight", self.preflight, ("refuse", "warn"))

    @property
    def peak_learning_rate(self) -> float:
        """The rate that is used: `train.learning_rate`, or what method and model suggest."""
        given = self.train.learning_rate
        return given if given is not None else self.method.learning_rate * self.model.learning_rate_scale


@dataclass
class BenchmarkConfig:
    """A set of questions with gold answers."""

    name: str = MISSING
    hub_id: str | None = None  # None: generated by this package
    hub_config: str | None = None
    split: str = "test"
    question: str = "problem"  # column
    gold: str = "answer"  # column
    id: str | None = None  # column of a stable name; None: the row's number
    rows: int | None = None  # rows the set must have; None: not checked
    path: str | None = None  # one's own JSONL (benchmarks=[FILE.jsonl])
    kind: str = "boxed"  # boxed: generate and grade the boxed answer; label: compare the logits of label words
    rule: str = "expression"  # how the gold is read (evaluate/answers/verdict.py)
    gold_after: str | None = None  # the gold is what stands after this mark in its column
    unit: str | None = None  # column of the answer's unit
    error: str | None = None  # column of the absolute error that a numerical answer may have

    def __post_init__(self) -> None:
        one_of("benchmark.kind", self.kind, ("boxed", "label"))
        one_of("benchmark.rule", self.rule, GOLD_RULES)


@dataclass
class DecodeConfig:
    """How completions are generated."""

    max_new_tokens: int = 2048
    batch_size: int | None = None  # completions at a time; None: what the memory holds, 256 on a GPU and 32 elsewhere
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    stop: list[str] = field(default_factory=list)  # strings that end a completion, and are cut off
    grade_seconds: float = 5.0  # deadline of one verification

    def __post_init__(self) -> None:
        at_least("decode.max_new_tokens", self.max_new_tokens, 1)
        at_least("decode.batch_size", self.batch_size, 1)
        if "" in self.stop:
            raise UserError("decode.stop holds an empty string, which every completion begins with: leave it out.")
        between("decode.temperature", self.temperature, 0.0, 10.0)
        between("decode.top_p", self.top_p, 0.01, 1.0)
        between("decode.grade_seconds", self.grade_seconds, 0.5, 600.0)


@dataclass
class EvaluateConfig:
    """Everything `ladder-eval` can be told."""

    run: str | None = None  # run directory of a trained adapter, or a glob of several
    completions: str | None = None  # JSONL of ready completions to grade, without any model
    model: ModelConfig = field(default_factory=ModelConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    benchmarks: Any = None  # names, or `all`; None: the run's own test set, or the model's `default_benchmarks`
    instruction: str = MISSING  # for a backbone alone; a run brings its own
    limit: int | None = None  # first N problems of each benchmark
    audit: bool = False  # check the gold answers of the benchmarks instead of a model's
    compare: list[str] | None = None  # two evaluated runs (or globs of several) to compare, problem by problem
    repeats: int = 1  # decode every problem so often: sampled anew, or (greedy) in other batches
    seed: int = 0  # of sampling
    output_dir: str | None = None  # None: <run>/eval, outputs/eval-<model>; of several runs outputs/eval-<pattern>
    data_dir: str | None = None
    allow_prompt_mismatch: bool = False  # evaluate an adapter under another prompt than it was trained with
    allow_other_backbone: bool = False  # evaluate an adapter on other weights than it was trained on
    allow_settings_mismatch: bool = False  # compare= sides that were decoded or graded differently

    def __post_init__(self) -> None:
        self.run, self.completions = expanded(self.run), expanded(self.completions)
        self.output_dir, self.data_dir = expanded(self.output_dir), expanded(self.data_dir)
        at_least("limit", self.limit, 1)
        at_least("repeats", self.repeats, 1)
        if self.compare is not None and len(self.compare) != 2:
            raise UserError(f"compare={self.compare} names {len(self.compare)} side(s): give two, compare=[DIR,DIR].")
        if self.compare is not None:
            self.compare = [os.path.expanduser(side) for side in self.compare]
        if isinstance(self.benchmarks, str):
            self.benchmarks = [self.benchmarks]
        if self.benchmarks is None:
            return
        named = isinstance(self.benchmarks, list) and all(isinstance(name, str) for name in self.benchmarks)
        if not named or not self.benchmarks:
            raise UserError(f"benchmarks={self.benchmarks} names nothing to evaluate: try benchmarks=[math500].")
        self.benchmarks = [os.path.expanduser(name) for name in self.benchmarks]


def option_names(schema: type, prefix: str = "") -> list[str]:
    """Every dotted option of a schema, for suggestions."""
    names = []
    for item in fields(schema):
        names.append(prefix + item.name)
        if isinstance(item.default_factory, type) and is_dataclass(item.default_factory):
            names += option_names(item.default_factory, f"{prefix}{item.name}.")
    return names


def options_of(schema: type, role: Role, prefix: str = "") -> list[str]:
    """The dotted options of a schema that have a role themselves, or lie in a group that has it."""
    names = []
    for item in fields(schema):
        if item.metadata.get("role") == role:
            names.append(prefix + item.name)
        elif isinstance(item.default_factory, type) and is_dataclass(item.default_factory):
            names += options_of(item.default_factory, role, f"{prefix}{item.name}.")
    return names


def covers(options: list[str], key: str) -> bool:
    """Whether a dotted key is one of the options, or lies inside one; names that merely begin alike do not count."""
    return any(key == option or key.startswith(f"{option}.") for option in options)
