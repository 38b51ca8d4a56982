"""What `ladder-eval` is asked to do, and which options that reads; an option that it does not read is refused.

Imports no torch: such a mistake is answered at once.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from ladder_cli.config.choices import BenchmarkKind, EngineKind
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.errors import UserError


class Mode(StrEnum):
    """The one thing that an evaluation is asked for; a member is the option that asks for it."""

    AUDIT = "audit"
    COMPLETIONS = "completions"
    COMPARE = "compare"
    REPORT = "report"
    RUN = "run"
    BACKBONE = "model"


_SAID: Final = {
    Mode.AUDIT: "audit=true",
    Mode.COMPLETIONS: "completions=FILE",
    Mode.COMPARE: "compare=[DIR,DIR]",
    Mode.REPORT: "report=DIR",
    Mode.RUN: "run=DIR",
    Mode.BACKBONE: "model=NAME",
}
_STREAMING: Final = ("trunk.residency", "trunk.window", "trunk.layer_files")
_LOADING: Final = (
    *("model.path", "model.hub_id", "model.revision", "model.quantization", "model.dtype", "model.attention"),
    *("model.trust_remote_code", "model.head_quantization", "model.embeddings_on_cpu", "model.mlp_chunk"),
    *_STREAMING,
)
_ANSWERING: Final = (
    *("model", "engine", "benchmarks", "instruction", "limit", "repeats", "seed", "output_dir", "data_dir"),
    *("hardware", "hardware.device"),
    *("decode", "decode.max_new_tokens", "decode.batch_size", "decode.temperature", "decode.top_p", "decode.stop"),
    *("decode.grade_seconds", *_LOADING),
)
# A group's name stands for the choice of its file (hardware=cpu), a dotted name for the single option.
READ: Final[dict[Mode, tuple[str, ...]]] = {
    Mode.AUDIT: ("benchmarks", "data_dir", "limit", "output_dir", "decode.grade_seconds"),
    Mode.COMPLETIONS: ("output_dir", "limit", "decode.grade_seconds"),
    Mode.COMPARE: ("output_dir", "allow_settings_mismatch"),
    Mode.REPORT: ("output",),
    # `model` is here for the line that says why a run takes none (targets.py).
    Mode.RUN: (*_ANSWERING, "allow_prompt_mismatch", "allow_other_backbone"),
    Mode.BACKBONE: (*_ANSWERING, "model.name"),
}

# Of a label task the logits of its label words decide: nothing is generated, sampled, or graded.
_GENERATING: Final = (
    *("decode", "decode.max_new_tokens", "decode.temperature", "decode.top_p", "decode.stop", "decode.grade_seconds"),
    "seed",
)


def mode_of(config: EvaluateConfig) -> Mode:
    """The one thing that the config asks for; a backbone alone where it names nothing else.

    Raises:
        UserError: if it asks for two.
    """
    asked = {
        Mode.AUDIT: config.audit,
        Mode.COMPLETIONS: config.completions is not None,
        Mode.COMPARE: config.compare is not None,
        Mode.REPORT: config.report is not None,
        Mode.RUN: config.run is not None,
    }
    modes = [mode for mode, wanted in asked.items() if wanted] or [Mode.BACKBONE]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(_SAID[mode] for mode in modes)} are different things to do: give one of them.")
    return modes[0]


def refuse_unread(config: EvaluateConfig, overrides: Sequence[str]) -> None:
    """Refuse options that were given on the command line and that the chosen mode does not read.

    Args:
        overrides: as they were typed; values that come from files and defaults are nobody's wish.

    Raises:
        UserError: with the first such option, and the modes that do read it.
    """
    mode = mode_of(config)
    for override in overrides:
        option, _, value = override.lstrip("+").partition("=")
        if option.startswith(("~", "hydra.", "hydra/")) or (option in _SAID and option != Mode.BACKBONE):
            continue
        if value == "null" or option in READ[mode]:
            continue
        readers = [said for other, said in _SAID.items() if option in READ[other]]
        told = f"it is for {' and '.join(readers)}" if readers else "no evaluation does"
        raise UserError(f"option '{option}': {_SAID[mode]} does not read it ({told}): leave it out.")
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    if mode in (Mode.RUN, Mode.BACKBONE) and config.decode.temperature == 0:
        for option in ("decode.top_p", "seed"):
            if option in given:
                raise UserError(f"option '{option}': greedy decoding does not read it; give decode.temperature too.")

    streamed = [option for option in given if option in _STREAMING]
    if config.engine is EngineKind.VLLM and streamed:
        raise UserError(f"option '{streamed[0]}': engine=vllm holds all layers itself and does not read it.")


def refuse_unread_by_labels(kinds: Sequence[BenchmarkKind], overrides: Sequence[str]) -> None:
    """Refuse options of generation that were given where only label tasks are to be answered.

    Args:
        kinds: of the benchmarks.

    Raises:
        UserError: with the first such option.
    """
    if not kinds or set(kinds) != {BenchmarkKind.LABEL}:
        return
    for override in overrides:
        option, _, value = override.lstrip("+").partition("=")
        if option in _GENERATING and value != "null":
            raise UserError(
                f"option '{option}': label tasks alone do not read it (nothing is generated; the logits of the label "
                "words decide): leave it out."
            )
