"""Finds tokens and passwords: refused as option values, hidden in all that is printed or written. Imports no torch."""

import os
import re

HIDDEN = "***"
# user:password@ in an address, and the tokens of the hub, GitHub, OpenAI, AWS and wandb. An old wandb key looks like a
# commit; it is recognised only by its value in WANDB_API_KEY.
_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")
_TOKENS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}"
    r"|wandb_v1_\w{20,})"
)
_SECRET_NAME = re.compile(r"(TOKEN|API_?KEY|ACCESS_KEY|PASSWORD|PASSWD|SECRET|SECRET_KEY)$", re.IGNORECASE)
# A shorter value would be found by accident in ordinary text.
_SHORTEST = 8


def redacted(text: str) -> str:
    """Hide credentials in a text: those in addresses, those of a known shape, the values of secret variables."""
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    return _TOKENS.sub(HIDDEN, _ADDRESS.sub(HIDDEN + "@", text))


def holds_secret(text: str) -> bool:
    """Return whether an option's value holds a credential."""
    return redacted(text) != text


def _secret_values() -> list[str]:
    values = [value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST]
    # The longest first: one secret may be the beginning of another.
    return sorted(values, key=len, reverse=True)
