"""What `ladder-eval` is asked to do, and which options that reads; an option that it does not read is refused.

Imports no torch: such a mistake is answered at once.
"""

from collections.abc import Sequence
from typing import Final

from ladder_cli.config.schema import EvaluateConfig
from ladder_cli.errors import UserError

LABEL = "label"  # kind of a benchmark
AUDIT, COMPLETIONS, COMPARE, RUN, BACKBONE = "audit", "completions", "compare", "run", "model"
_SAID: Final = {
    AUDIT: "audit=true",
    COMPLETIONS: "completions=FILE",
    COMPARE: "compare=[DIR,DIR]",
    RUN: "run=DIR",
    BACKBONE: "model=NAME",
}
_LOADING: Final = (
    *("model.path", "model.hub_id", "model.revision", "model.quantization", "model.dtype", "model.attention"),
    *("model.trust_remote_code", "model.head_quantization", "model.embeddings_on_cpu", "model.mlp_chunk"),
)
_ANSWERING: Final = (
    *("model", "benchmarks", "instruction", "limit", "repeats", "seed", "output_dir", "data_dir"),
    *("hardware", "hardware.device", "hardware.eval_batch_size"),
    *("decode", "decode.max_new_tokens", "decode.batch_size", "decode.temperature", "decode.top_p", "decode.stop"),
    *("decode.grade_seconds", *_LOADING),
)
# A group's name stands for the choice of its file (hardware=cpu), a dotted name for the single option.
READ: Final[dict[str, tuple[str, ...]]] = {
    AUDIT: ("benchmarks", "data_dir", "limit", "output_dir", "decode.grade_seconds"),
    COMPLETIONS: ("output_dir", "limit", "decode.grade_seconds"),
    COMPARE: ("output_dir", "allow_settings_mismatch"),
    # `model` is here for the line that says why a run takes none (targets.py).
    RUN: (*_ANSWERING, "allow_prompt_mismatch", "allow_other_backbone"),
    # The three are what `conf/evaluate.yaml` lets the model take from the hardware.
    BACKBONE: (
        *(*_ANSWERING, "model.name"),
        *("hardware.head_quantization", "hardware.embeddings_on_cpu", "hardware.mlp_chunk"),
    ),
}

# Of a label task the logits of its label words decide: nothing is generated, sampled, or graded.
_GENERATING: Final = (
    *("decode", "decode.max_new_tokens", "decode.temperature", "decode.top_p", "decode.stop", "decode.grade_seconds"),
    "seed",
)


def mode_of(config: EvaluateConfig) -> str:
    """The one thing that the config asks for; a backbone alone where it names nothing else.

    Raises:
        UserError: if it asks for two.
    """
    asked = {
        AUDIT: config.audit,
        COMPLETIONS: config.completions is not None,
        COMPARE: config.compare is not None,
        RUN: config.run is not None,
    }
    modes = [mode for mode, wanted in asked.items() if wanted] or [BACKBONE]
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
        if option.startswith(("~", "hydra.", "hydra/")) or (option in _SAID and option != BACKBONE):
            continue
        if value == "null" or option in READ[mode]:
            continue
        readers = [said for other, said in _SAID.items() if option in READ[other]]
        told = f"it is for {' and '.join(readers)}" if readers else "no evaluation does"
        raise UserError(f"option '{option}': {_SAID[mode]} does not read it ({told}): leave it out.")
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    if mode in (RUN, BACKBONE) and "decode.top_p" in given and config.decode.temperature == 0:
        raise UserError("option 'decode.top_p': greedy decoding does not read it; give decode.temperature too.")


def refuse_unread_by_labels(kinds: Sequence[str], overrides: Sequence[str]) -> None:
    """Refuse options of generation that were given where only label tasks are to be answered.

    Args:
        kinds: of the benchmarks, `boxed` or `label`.

    Raises:
        UserError: with the first such option.
    """
    if not kinds or set(kinds) != {LABEL}:
        return
    for override in overrides:
        option, _, value = override.lstrip("+").partition("=")
        if option in _GENERATING and value != "null":
            raise UserError(
                f"option '{option}': label tasks alone do not read it (nothing is generated; the logits of the label "
                "words decide): leave it out."
            )
