"""The chat template of a tokenizer: chosen, with its clock stopped, applied, its errors put into words.

Some templates print the date. A prompt must not change with the clock, so they see a fixed day.
"""

import string
from calendar import timegm
from collections.abc import Sequence
from datetime import UTC, datetime

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from ladder_cli.errors import UserError

# Transformers gives templates one clock, `strftime_now(format)`, and lets callers pass no other function. A macro of
# that name in front of the template replaces it; the macro replaces each directive by its value on the fixed day.
_CLOCK = "strftime_now"
_MACRO = f"{{%- macro {_CLOCK}"
_PERCENT = "\ue000"  # of the private use area, in the place of `%%` while directives are replaced


def chosen_template(tokenizer: PreTrainedTokenizerBase, date: str) -> str | None:
    """Return the tokenizer's chat template with its clock fixed, or None if it has no template.

    Raises:
        UserError: if it has several and none is the default.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if template and "default" not in template:
            raise UserError(
                f"the tokenizer has several chat templates ({', '.join(sorted(template))}) and none is named "
                "'default': name one so in its tokenizer_config.json, or keep a single chat_template."
            )
        template = template.get("default")
    return with_fixed_clock(template, date) if template else None


def applied_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[tuple[str, str]],
    generation_prompt: bool,
) -> str:
    """Render a chat with the template.

    Args:
        template: as `chosen_template` returned it.
        messages: (role, text) of each turn.
        generation_prompt: end with the beginning of an answer of the assistant.

    Raises:
        UserError: if the template is broken, or refuses such a chat.
    """
    turns = [{"role": role, "content": content} for role, content in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
            )
        )
    except TemplateSyntaxError as error:
        line = _line_in_source(template, error.lineno)
        raise UserError(
            f"the tokenizer's chat template is broken (line {line}: {_reason(error)}): mend its "
            "chat_template.jinja, or take the tokenizer from where it came."
        ) from error
    except TemplateError as error:
        roles = ", ".join(role for role, _ in messages)
        raise UserError(
            f"the model's chat template refuses this conversation ({roles}): {_reason(error)}. Change or leave out "
            "the turns that it does not take."
        ) from error
    except Exception as error:  # a template is a stranger's program and may fail in any way
        raise UserError(
            f"the tokenizer's chat template fails on this conversation ({type(error).__name__}: {_reason(error)})."
        ) from error


def reads_clock(template: str) -> bool:
    """Return whether the template may print the present day."""
    return _CLOCK in template


def with_fixed_clock(template: str, date: str) -> str:
    """Return the template; if it reads the clock, with the clock fixed at the beginning of a day.

    Args:
        template: Jinja source.
        date: the day, as `2026-01-01`.
    """
    if not reads_clock(template):
        return template
    day = datetime.fromisoformat(date).replace(tzinfo=UTC)
    replaced = "".join(f"|replace({key!r}, {value!r})" for key, value in _directives(day).items())
    macro = f"{_MACRO}(format) -%}}{{{{- format|replace('%%', {_PERCENT!r}){replaced}"
    # The macro has a line of its own, of which Transformers' Jinja leaves no trace in the output.
    return macro + f"|replace({_PERCENT!r}, '%') -}}}}{{%- endmacro %}}\n" + template


def _line_in_source(template: str, line: int) -> int:
    """Convert a line number of the result of `with_fixed_clock` to one of its argument."""
    return line - 1 if template.startswith(_MACRO) else line


def _directives(day: datetime) -> dict[str, str]:
    """Return what strftime makes of each directive on that day, without those that it does not know."""
    known = {"%s": str(timegm(day.timetuple()))}  # strftime's own depends on the machine's time zone
    for letter in string.ascii_letters:
        for directive in (f"%{letter}", f"%-{letter}"):
            if (value := day.strftime(directive)) != directive and "%" not in value:
                known.setdefault(directive, value)
    return known


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".")
