"""Chat templates that print the date: a prompt must not change with the clock, so theirs is stopped."""

import string
from calendar import timegm
from datetime import UTC, datetime

# Transformers hands templates one clock, `strftime_now(format)`, and takes no other function from its callers. A macro
# of that name in front of the template takes its place; it replaces each directive by what it is on the fixed day.
_CLOCK = "strftime_now"
_MACRO = f"{{%- macro {_CLOCK}"
_PERCENT = "\ue000"  # of the private use area, in the place of `%%` while directives are replaced


def reads_clock(template: str) -> bool:
    """Whether the template may print the present day."""
    return _CLOCK in template


def with_fixed_clock(template: str, date: str) -> str:
    """The template, with its clock stopped at the beginning of a day where it reads it.

    Args:
        template: Jinja source.
        date: the day, as `2026-01-01`.
    """
    if not reads_clock(template):
        return template
    day = datetime.fromisoformat(date).replace(tzinfo=UTC)
    replaced = "".join(f"|replace({key!r}, {value!r})" for key, value in _directives(day).items())
    macro = f"{_MACRO}(format) -%}}{{{{- format|replace('%%', {_PERCENT!r}){replaced}"
    # On a line of its own, which Transformers' Jinja leaves no trace of: the template begins as it did.
    return macro + f"|replace({_PERCENT!r}, '%') -}}}}{{%- endmacro %}}\n" + template


def line_in_source(template: str, line: int) -> int:
    """A line of what `with_fixed_clock` returned as a line of what it was given."""
    return line - 1 if template.startswith(_MACRO) else line


def _directives(day: datetime) -> dict[str, str]:
    """What strftime makes of each directive on that day; those that it does not know stay as they are."""
    known = {"%s": str(timegm(day.timetuple()))}  # strftime's own depends on the machine's time zone
    for letter in string.ascii_letters:
        for directive in (f"%{letter}", f"%-{letter}"):
            if (value := day.strftime(directive)) != directive and "%" not in value:
                known.setdefault(directive, value)
    return known
