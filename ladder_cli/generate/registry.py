"""The engines by name. One contract suite runs over them (tests/generate/test_contract.py)."""

from collections.abc import Callable

from ladder_cli.config.choices import EngineKind
from ladder_cli.generate.engine import Engine
from ladder_cli.generate.ready import ReadyCompletions
from ladder_cli.generate.transformers_engine import TransformersEngine
from ladder_cli.generate.vllm_engine import VllmEngine

TRANSFORMERS, VLLM, READY = EngineKind.TRANSFORMERS, EngineKind.VLLM, "ready"
ENGINES: dict[str, Callable[..., Engine]] = {
    TRANSFORMERS: TransformersEngine,
    VLLM: VllmEngine,
    READY: ReadyCompletions,
}
