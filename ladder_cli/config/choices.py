"""The choices of every option with a closed set of values: one enumeration each, whose values stand here alone.

A member is the text that it stands for (`Gate.SUM == "sum"`), and goes to disk as that text. Imports no torch.
"""

from enum import StrEnum
from typing import TypeVar

from ladder_cli.config.validation import suggest
from ladder_cli.errors import UserError

Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(option: str, value: object, choices: type[Choice]) -> Choice:
    """The member that a text (or a member) stands for.

    Raises:
        UserError: if it is none, naming the nearest.
    """
    for member in choices:
        if isinstance(value, str) and member.value == value:
            return member
    names = [member.value for member in choices]
    raise UserError(f"{option}={value} is not a choice.{suggest(str(value), names)} Choose from: {', '.join(names)}.")


class Quantization(StrEnum):
    """How weights are stored: as they are, or by bitsandbytes in eight or four bits."""

    NONE = "none"
    INT8 = "int8"
    NF4 = "nf4"


class Residency(StrEnum):
    """Where the backbone's layers are while they do not compute."""

    RESIDENT = "resident"  # where they compute
    HOST = "host"  # in page-locked memory of the host; for GPUs
    DISK = "disk"  # in files, mapped
    AUTO = "auto"  # resident if a step then fits the memory, else host, else disk


class Dtype(StrEnum):
    """The type that the backbone computes in."""

    AUTO = "auto"  # bfloat16 on a GPU, the checkpoint's own on a CPU
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Device(StrEnum):
    """Where a model computes."""

    AUTO = "auto"  # the first GPU, else the CPU
    CPU = "cpu"
    CUDA = "cuda"  # AMD's cards too: torch for ROCm calls them so
    MPS = "mps"  # Apple's
    XPU = "xpu"  # Intel's


class RowFormat(StrEnum):
    """What a row of a training set is."""

    PAIRS = "pairs"  # a question and an answer, in named columns
    CHAT = "chat"  # a list of messages
    LABEL = "label"  # a question that a label word answers
    PREFERENCE = "preference"  # a prompt and two answers, of which one is preferred
    GENERATED = "generated"  # problems that this package makes itself


class ObjectiveKind(StrEnum):
    """What is minimised (nn/objective.py)."""

    SFT = "sft"  # cross-entropy of the next token
    DPO = "dpo"  # the preferred answer over the other one, against the bare backbone
    GRPO = "grpo"  # of several answers of its own to a prompt, the better ones


class PreferenceLoss(StrEnum):
    """What preference learning makes of a pair (nn/preference.py)."""

    SIGMOID = "sigmoid"  # DPO's own, Rafailov et al., 2023
    IPO = "ipo"  # a squared distance from a margin, Azar et al., 2023


class Learn(StrEnum):
    """Which of the assistant's turns of a chat count for the loss."""

    ALL = "all"
    LAST = "last"


class Truncation(StrEnum):
    """What happens to an example that is longer than `data.max_length`."""

    DROP = "drop"
    LEFT = "left"  # its end is what stays
    ERROR = "error"


class Scheduler(StrEnum):
    """The course of the learning rate, in Transformers' names."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


class Optimizer(StrEnum):
    """What takes the steps."""

    AUTO = "auto"  # 8-bit AdamW on a GPU, AdamW elsewhere
    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    MUON = "muon"  # of matrices; AdamW of the rest

    def on(self, device_type: str) -> "Optimizer":
        """What this is on a device of torch's type (`cuda`, `cpu`, ...): `auto` depends on it."""
        return _AUTO_OPTIMIZER[device_type] if self is Optimizer.AUTO else self


_AUTO_OPTIMIZER = {
    "cuda": Optimizer.ADAMW_8BIT,
    "cpu": Optimizer.ADAMW,
    "mps": Optimizer.ADAMW,
    "xpu": Optimizer.ADAMW,
}


class Tracker(StrEnum):
    """What shows the lines of `metrics.jsonl` elsewhere, each by its own client through accelerate."""

    NONE = "none"
    WANDB = "wandb"
    TRACKIO = "trackio"
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


class WandbMode(StrEnum):
    """Where Weights & Biases sends a run."""

    OFF = "off"
    OFFLINE = "offline"
    ONLINE = "online"


class Together(StrEnum):
    """Whether runs of a sweep that share backbone and rows are trained side by side on one pass."""

    AUTO = "auto"  # those of the same seed
    TRUE = "true"  # other seeds too, all in one order of the rows
    FALSE = "false"


class Passes(StrEnum):
    """How the rows of a micro-batch go through a backbone that is only read."""

    AUTO = "auto"  # row on a CPU, batch on a GPU
    ROW = "row"  # each by itself and without padding, so that what is read of it depends on nothing else
    BATCH = "batch"  # together, padded to the longest


class CacheMode(StrEnum):
    """Where what is read of a backbone is kept, so that no row has to pass it twice."""

    OFF = "off"
    MEMORY = "memory"  # of this process; gone with it
    DISK = "disk"  # shared by runs and processes of one machine
    AUTO = "auto"  # memory or disk, where it is read more than once and fits


class CacheFormat(StrEnum):
    """How it is kept."""

    EXACT = "exact"  # in the backbone's type, bit for bit
    INT8 = "int8"  # a byte a value, and a scale a token


class CacheCommand(StrEnum):
    """What `ladder-train cache=...` does with what is kept on disk, in place of training."""

    LIST = "list"  # taps and layer files
    PRUNE = "prune"  # taps
    PRUNE_LAYERS = "prune_layers"


class OnMisfit(StrEnum):
    """What happens if a step cannot fit the memory."""

    REFUSE = "refuse"
    WARN = "warn"


class BenchmarkKind(StrEnum):
    """How a benchmark is answered."""

    BOXED = "boxed"  # generate, and grade the boxed answer
    LABEL = "label"  # compare the logits of label words


class GoldReading(StrEnum):
    """How gold answers are read (evaluate/answers/verdict.py)."""

    EXPRESSION = "expression"
    PHYSICAL = "physical"
    SEVERAL = "several"


class Pattern(StrEnum):
    """Which backbone layer feeds which side layer (nn/connections.py)."""

    ALIGNED = "aligned"
    FIRST = "first"
    LAST = "last"
    EVEN = "even"
    BRANCH = "branch"


class EngineKind(StrEnum):
    """What answers the prompts of an evaluation, or of a training that samples."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"  # in this environment (docs/serving.md)


class ExportFormat(StrEnum):
    """The form that a trained adapter is exported in (docs/serving.md)."""

    VLLM = "vllm"  # a folder that `vllm serve` takes as it is
    MERGED = "merged"  # an ordinary model, the adapter added to its weights
    PEFT = "peft"  # an adapter that peft loads
    GGUF = "gguf"  # a merged model for llama.cpp


# What each part of a ladder can be (docs/ladder.md).


class Gate(StrEnum):
    """How a tap joins the state of the side network (nn/gates.py)."""

    SUM = "sum"
    FIXED = "fixed"
    LEARNED = "learned"
    VECTOR = "vector"
    TAP = "tap"


class Combination(StrEnum):
    """How the side network joins the backbone at the end (nn/combine.py)."""

    RESIDUAL = "residual"
    SIDE = "side"
    GATED = "gated"
    REPLACE = "replace"


class Projection(StrEnum):
    """The down-projection of the taps (nn/projections.py)."""

    FULL = "full"
    LOW_RANK = "low_rank"
    SHARED = "shared"
    NONE = "none"


class TapNorm(StrEnum):
    """The norm of a tap before its projection."""

    NONE = "none"
    RMS = "rms"


class Block(StrEnum):
    """What a side layer is made of."""

    FULL = "full"  # attention and feed-forward
    ATTENTION = "attention"  # attention alone


class SideAttention(StrEnum):
    """Head size and key-value heads of the side attention."""

    NARROW = "narrow"
    BACKBONE = "backbone"


class Init(StrEnum):
    """First weights of the side network."""

    UNIFORM = "uniform"
    PRUNED_MAGNITUDE = "pruned_magnitude"
    PRUNED_FISHER = "pruned_fisher"
    CLONED = "cloned"
