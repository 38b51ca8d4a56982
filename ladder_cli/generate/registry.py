"""The engines by name. One contract suite runs over them (tests/generate/test_contract.py)."""

from collections.abc import Callable

from ladder_cli.generate.engine import Engine
from ladder_cli.generate.ready import ReadyCompletions
from ladder_cli.generate.transformers_engine import TransformersEngine

TRANSFORMERS, READY = "transformers", "ready"
ENGINES: dict[str, Callable[..., Engine]] = {TRANSFORMERS: TransformersEngine, READY: ReadyCompletions}
