"""vLLM's entry point (`vllm.general_plugins`): makes `vllm serve` take a folder of `ladder-export format=vllm`.

vLLM calls `register` in each of its processes, whatever model it serves. Nothing is imported before, and the model's
code only when a ladder is loaded.
"""

from ladder_cli.serve.served import ARCHITECTURE

# Minor versions with which the plugin was run. vLLM's inner interfaces change from one to the next.
TESTED = ("0.32",)


def register() -> None:
    """Make the architecture and its config known."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from ladder_cli.serve.vllm_config import ServedLadderConfig

    AutoConfig.register(ServedLadderConfig.model_type, ServedLadderConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, "ladder_cli.serve.vllm_model:LadderForCausalLM")


def refuse_other_version(version: str) -> None:
    """Refuse a vLLM with which nobody has run a ladder.

    Raises:
        ValueError: naming those with which it was run.
    """
    if ".".join(version.split(".")[:2]) not in TESTED:
        raise ValueError(
            f"ladders were served with vLLM {', '.join(TESTED)}, and this is {version}: install that one, or ask with "
            "ladder-chat and ladder-eval engine=transformers"
        )
