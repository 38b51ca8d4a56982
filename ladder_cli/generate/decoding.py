"""How completions are made, as it really acts: this toolkit's settings, and of the model's own only its end tokens.

A model folder's `generation_config.json` may set beams, penalties, suppressed tokens, temperatures and more, and
Transformers fills every setting that a caller leaves open from it. None of that is wanted in an evaluation, so `clean`
takes it away while completions are made.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, LogitsProcessor, PreTrainedConfig

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError

_GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class ModelLimits:
    """What is kept of what a model says about generation.

    Attributes:
        end_tokens: its own end tokens, all of them.
        positions: tokens of prompt and completion that it has positions for; None where it names no number.
        vocabulary: rows of its embeddings; None where it names no number.
    """

    end_tokens: tuple[int, ...]
    positions: int | None
    vocabulary: int | None = None


def read_limits(model: ModelConfig) -> ModelLimits:
    """The limits of a model folder or hub repository, without its weights.

    Raises:
        UserError: if its config or generation config cannot be read.
    """
    location, local = model.location, Path(model.location).is_dir()
    try:
        config = AutoConfig.from_pretrained(
            location, revision=model.revision, trust_remote_code=model.trust_remote_code, local_files_only=local
        )
        try:
            own = GenerationConfig.from_pretrained(location, revision=model.revision or "main", local_files_only=local)
        except OSError:
            # A folder or repository without the file; one that holds a broken file is the user's to mend.
            if local and (Path(location) / _GENERATION_CONFIG).is_file():
                raise
            own = GenerationConfig.from_model_config(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"model={model.name}: cannot read the config or {_GENERATION_CONFIG} of '{location}' "
            f"({' '.join(str(error).split())[:200]}): mend or restore the file."
        ) from error
    return _limits(own, config)


def limits_of(model: nn.Module) -> ModelLimits:
    """The limits of a loaded model."""
    config: Any = model.config
    return _limits(model.generation_config, getattr(config, "backbone_config", lambda: config)())  # type: ignore[arg-type]


def _limits(own: GenerationConfig, config: PreTrainedConfig) -> ModelLimits:
    ends: Any = own.eos_token_id
    tokens = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    text = config.get_text_config(decoder=True)
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int):
        rope = getattr(text, "rope_parameters", None) or {}
        # Stretched positions (YaRN) are told as a factor on the original number.
        factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
        if isinstance(factor, int | float) and isinstance(original, int):
            positions = max(positions, int(factor * original))
    rows = getattr(text, "vocab_size", None)
    return ModelLimits(
        end_tokens=tuple(sorted(set(map(int, tokens)))),
        positions=positions if isinstance(positions, int) else None,
        vocabulary=rows if isinstance(rows, int) else None,
    )


def engine_identity() -> str:
    """What makes the completions; those of another engine or version are never mixed in."""
    return f"transformers {transformers.__version__}"


@dataclass(frozen=True)
class Decoding:
    """Everything that acts on a completion.

    Attributes:
        end_tokens: the model's own, the tokenizer's, and the chat template's end of turn.
        stop: strings that end a completion and are cut off.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    end_tokens: tuple[int, ...]
    pad_token: int

    @classmethod
    def of(cls, decode: DecodeConfig, renderer: PromptRenderer, limits: ModelLimits) -> "Decoding":
        """Our settings with the end tokens of model, tokenizer and chat template."""
        return cls(
            max_new_tokens=decode.max_new_tokens,
            temperature=decode.temperature,
            top_p=decode.top_p,
            stop=tuple(decode.stop),
            end_tokens=tuple(sorted({*limits.end_tokens, *renderer.stop_ids})),
            pad_token=int(renderer.tokenizer.pad_token_id),
        )

    @property
    def greedy(self) -> bool:
        """Whether every token is the one with the largest logit."""
        return self.temperature == 0

    def record(self) -> dict[str, Any]:
        """For settings.json: all that acts. What is not named here (beams, penalties, suppressed tokens) does not."""
        return {
            "strategy": "argmax" if self.greedy else "sampling",
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": list(self.stop),
            "end_tokens": list(self.end_tokens),
            "pad_token": self.pad_token,
        }

    def generation_config(self) -> GenerationConfig:
        """The same for Transformers."""
        options: dict[str, Any] = {"do_sample": False}
        if not self.greedy:
            options = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        if self.stop:
            options["stop_strings"] = list(self.stop)
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            num_beams=1,
            use_cache=True,
            eos_token_id=list(self.end_tokens),
            pad_token_id=self.pad_token,
            **options,
        )


@contextmanager
def clean(model: nn.Module) -> Iterator[None]:
    """Within a `with` block, no generation config of the model's own acts; `generate` would fill gaps from it."""
    owners = [module for module in model.modules() if "generation_config" in vars(module)]
    kept = [module.generation_config for module in owners]
    for module in owners:
        module.generation_config = GenerationConfig()  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, own in zip(owners, kept, strict=True):
            module.generation_config = own


class FiniteLogits(LogitsProcessor):
    """Notes at which token a row's largest logit was first NaN or infinite; changes nothing of a finite row.

    Attributes:
        first: `[batch]`, the number of that token from 0; a very large number where there is none.
    """

    NEVER = 2**62

    def __init__(self, sampling: bool) -> None:
        """`sampling`: drawing from such a row would raise (and on a GPU end the process), so it is flattened."""
        self._sampling = sampling
        self._step = 0
        self.first: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores `[batch, vocabulary]` of the next token, noted."""
        broken = ~scores.amax(-1).isfinite()
        if self.first is None:
            self.first = torch.full(broken.shape, self.NEVER, device=broken.device)
        self.first = torch.where(broken & (self.first > self._step), self._step, self.first)
        # Broken weights show at once, and need not be run to the limit of new tokens.
        if self._step == 0 and bool(broken.any()):
            raise NotFiniteAtOnce
        self._step += 1
        return torch.where(broken[:, None], 0.0, scores) if self._sampling else scores


class NotFiniteAtOnce(Exception):
    """The first token of a completion had a logit that is not finite; `FiniteLogits.first` says of which rows."""
