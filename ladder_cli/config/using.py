"""The schemas of the commands that use what was trained: `ladder-export` and `ladder-chat`. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import MISSING

from ladder_cli.config.choices import Dtype, ExportFormat
from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.options import expanded, option, settle, told_of
from ladder_cli.config.schema import HardwareConfig, ModelConfig, refuse_untried
from ladder_cli.errors import UserError

# Options of a backbone that say where it lies and how it is loaded, which are read beside `run`.
LOADING = (
    *("model.path", "model.hub_id", "model.revision", "model.quantization", "model.dtype", "model.attention"),
    *("model.trust_remote_code", "model.head_quantization", "model.embeddings_on_cpu", "model.mlp_chunk"),
)
_SAMPLING = ("decode.max_new_tokens", "decode.temperature", "decode.top_p", "decode.stop")


@dataclass
class ExportConfig:
    """Everything `ladder-export` can be told."""

    run: str | None = option(None, "run directory of a trained adapter")
    format: ExportFormat | None = option(
        None, "vllm: a folder for vLLM; merged: an ordinary model; peft: an adapter for peft; gguf: for llama.cpp"
    )
    output: str | None = option(None, "the folder to write, new or empty")
    dtype: Dtype = option(
        Dtype.AUTO, "of the written weights; auto: what the backbone computed in, and float32 of a side network"
    )
    converter: str | None = option(
        None, "llama.cpp's convert_hf_to_gguf.py; null: the one on the PATH", needs=("format", ExportFormat.GGUF)
    )
    push: str | None = option(None, "repository of the hub, OWNER/NAME, that the folder goes to once it is written")
    push_private: bool = option(True, "a repository that `push` makes is private")
    push_dry_run: bool = option(False, "with `push`: write the folder, show what would go there, and ask no hub")
    model: ModelConfig = option(ModelConfig, "the backbone, where it has moved (model.path=DIR)")
    hardware: HardwareConfig = option(HardwareConfig, "where")
    allow_other_backbone: bool = option(False, "export an adapter on other weights than it was trained on")

    def __post_init__(self) -> None:
        self.run, self.output = expanded(self.run), expanded(self.output)
        self.converter = expanded(self.converter)
        settle(self, "")
        refuse_untried(self.hardware, self.model, {})

    def refuse_unread(self, given: Sequence[str]) -> None:
        """Refuse what is missing, and what was given on the command line and nothing reads.

        Args:
            given: as `compose.given_options` gives them.

        Raises:
            UserError: naming the option.
        """
        for name, example in (("run", "run=outputs/NAME"), ("format", _formats()), ("output", "output=DIR")):
            if getattr(self, name) is None:
                raise UserError(f"{name} is missing: give {example}.")
        for item in fields(self):
            if (needs := told_of(item).needs) and item.name in given and getattr(self, needs[0]) != needs[1]:
                raise UserError(
                    f"{item.name} is given, but nothing reads it: {needs[0]} is {getattr(self, needs[0])}; "
                    f"{needs[0]}={needs[1]} reads it."
                )
        for name in ("push_private", "push_dry_run"):
            if name in given and self.push is None:
                raise UserError(f"{name} is given, but nothing reads it without push=OWNER/NAME.")
        _refuse_unread(self, given, ())


def _formats() -> str:
    return "format=NAME, of: " + ", ".join(ExportFormat)


@dataclass
class ChatConfig:
    """Everything `ladder-chat` can be told."""

    run: str | None = option(
        None,
        "run directory of a trained adapter, or a quoted glob of several on one backbone; null: the backbone alone",
    )
    prompt: str | None = option(None, "answer this and exit; -: what standard input holds")
    system: str | None = option(None, "a system message before the chat")
    model: ModelConfig = option(ModelConfig, "the backbone")
    hardware: HardwareConfig = option(HardwareConfig, "where")
    decode: DecodeConfig = option(DecodeConfig, "how answers are generated")
    instruction: str = option(MISSING, "stands after every question; a run brings its own")
    seed: int = option(0, "of sampling", at_least=0)
    allow_prompt_mismatch: bool = option(False, "ask an adapter under another prompt than it was trained with")
    allow_other_backbone: bool = option(False, "ask an adapter on other weights than it was trained on")

    def __post_init__(self) -> None:
        self.run = expanded(self.run)
        settle(self, "")
        refuse_untried(self.hardware, self.model, {})

    def refuse_unread(self, given: Sequence[str]) -> None:
        """Refuse what was given on the command line and nothing reads.

        Args:
            given: as `compose.given_options` gives them.

        Raises:
            UserError: naming the option.
        """
        _refuse_unread(self, given, ("decode", *_SAMPLING, *(() if self.run is not None else ("model.name",))))
        for name in ("allow_prompt_mismatch", "allow_other_backbone"):
            if name in given and self.run is None:
                raise UserError(f"{name} is given, but nothing reads it without run=DIR.")
        for name in ("decode.top_p", "seed"):
            if name in given and self.decode.temperature == 0:
                raise UserError(f"{name} is given, but greedy decoding does not read it: give decode.temperature too.")


def _refuse_unread(config: Any, given: Sequence[str], more: Sequence[str]) -> None:
    """`model` itself may stand there: where the run brings its own, that is said when the run is opened."""
    own = {item.name for item in fields(config)}
    read = {*own, "hardware.device", *LOADING, *more}
    for name in given:
        if name not in read and not any(
            name.startswith(f"{option}.") for option in read - {"model", "hardware", "decode"}
        ):
            raise UserError(f"{name} is given, but this command does not read it: leave it out.")
