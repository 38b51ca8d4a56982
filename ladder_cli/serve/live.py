"""vLLM on a model that is being trained: one folder when it starts, and after that the trained weights alone.

A side network goes into the layers that vLLM has built for it; a suffix below it as the merged matrices of its layers.
LoRA stays LoRA: each state of it is an adapter of vLLM's own. Before prompts are answered every worker has said what it
has read, and nothing that was computed by weights of before is read again.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from ladder_cli.config.choices import Quantization
from ladder_cli.config.methods import LadderMethodConfig, MethodConfig, QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.backbones import Backbones
from ladder_cli.generate.decoding import ModelLimits
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.generate.vllm_engine import VllmEngine, vllm_version
from ladder_cli.generate.vllm_processes import ServedModel
from ladder_cli.nn.adapter import CONFIG_FILE, LADDER, PEFT, AdapterFolder
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.plan.out_of_memory import free_memory
from ladder_cli.run.directory import RunDir
from ladder_cli.serve.dense import densify, merged_weight
from ladder_cli.serve.export import write_served
from ladder_cli.serve.served import SERVED_BACKBONES, SIDE_PREFIX
from ladder_cli.serve.temporary import TemporaryHome, served_backbone
from ladder_cli.serve.vllm_plugin import refuse_other_version
from ladder_cli.serve.vllm_updates import EXTENSION, digest_of
from ladder_cli.trunk.loading import architecture, load_backbone, planned_dtype
from ladder_cli.trunk.parts import keep_differentiable

ENGINE_OPTION = "objective.engine"
# What vLLM's kernels for LoRA are built for; a lower rank takes the room of the next.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Policy:
    """What is trained, and what vLLM has to know of it.

    Attributes:
        model: as it learns.
        config: of its backbone.
        run: its directory, for messages.
        renderer: of its prompts.
        limits: of the backbone.
        device: where it learns, and where vLLM answers.
        device_name: the same as `hardware.device` names it.
        longest: tokens of the longest prompt and completion.
        memory: share of the device's memory that vLLM takes.
        sending: is entered while weights travel; for whoever counts the seconds.
    """

    model: Any
    config: ModelConfig
    run: RunDir
    renderer: PromptRenderer
    limits: ModelLimits
    device: torch.device
    device_name: str
    longest: int
    memory: float
    sending: Callable[[], AbstractContextManager[None]]


def vllm_following(policy: Policy) -> VllmEngine:
    """vLLM, which answers by what the policy is whenever it is asked. Nothing is written or started yet.

    Raises:
        UserError: if there is no vLLM in this environment, or it cannot follow such a method.
    """
    following = _FOLLOWING[LADDER if isinstance(policy.model, LadderModel) else PEFT](policy)
    name = policy.config.name
    return VllmEngine(following.served, policy.renderer, policy.limits, name, policy.device, following, ENGINE_OPTION)


def check_vllm(method: MethodConfig, model: ModelConfig) -> None:
    """Refuse a sampling by vLLM that cannot be, before anything is loaded.

    Raises:
        UserError: if vLLM is not there, or not the version that is needed, or knows no such backbone or adapter.
    """
    version = vllm_version(ENGINE_OPTION)
    _CHECKS[type(method)](method, model, version)


def _check_ladder(method: MethodConfig, model: ModelConfig, version: str) -> None:
    try:
        refuse_other_version(version)
    except ValueError as error:
        raise UserError(f"{ENGINE_OPTION}=vllm: {error}.") from error
    kind = architecture(model).model_type
    if kind not in SERVED_BACKBONES:
        raise UserError(
            f"{ENGINE_OPTION}=vllm knows ladders on {', '.join(SERVED_BACKBONES)}, and model={model.name} is {kind}: "
            f"leave {ENGINE_OPTION} out."
        )


def _check_low_rank(method: QLoRAMethodConfig, model: ModelConfig, version: str) -> None:
    if (rank := method.rank) > _RANKS[-1]:
        raise UserError(
            f"{ENGINE_OPTION}=vllm takes LoRA of rank {_RANKS[-1]} at most, and method.rank is {rank}: lower it, or "
            f"leave {ENGINE_OPTION} out."
        )


class _Following(ABC):
    """What both ways have in common: the digest of what vLLM has, and not sending that again."""

    def __init__(self, policy: Policy) -> None:
        self.options: Mapping[str, Any] = {
            "gpu_memory_utilization": policy.memory,
            "worker_extension_cls": EXTENSION,
            # Of the distribution that is drawn from: after the temperature.
            "logprobs_mode": "processed_logprobs",
            **({} if policy.config.revision is None else {"revision": policy.config.revision}),
        }
        self.longest = policy.longest
        self._policy, self._home = policy, TemporaryHome()
        self._holder: Any = None  # the `LLM` that has what the digest is of
        self._digest = ""
        self._adapter: Any = None

    @abstractmethod
    def served(self) -> ServedModel:
        """The folder that vLLM starts from."""

    @abstractmethod
    def _weights(self) -> dict[str, Tensor]:
        """What is trained, as it is now."""

    @abstractmethod
    def _send(self, llm: Any, weights: dict[str, Tensor], digest: str) -> Any:
        """Have all workers take the weights.

        Returns:
            The adapter that prompts are to name, or None.

        Raises:
            RunFailed: if one of them has others.
        """

    def bring(self, llm: Any) -> Any:
        """Send what has changed, and nothing where nothing has; see `Following`."""
        with self._policy.sending(), torch.no_grad():
            weights = self._weights()
            digest = digest_of(weights)
            if self._holder is not llm or digest != self._digest:
                self._holder = None
                self._adapter = self._send(llm, weights, digest)
                self._holder, self._digest = llm, digest
        return self._adapter


class _Ladder(_Following):
    """A side network, and the merged matrices of the layers above it that learn by LoRA."""

    def served(self) -> ServedModel:
        """The ladder as `ladder-export format=vllm` writes it, held against itself.

        Raises:
            UserError: if the plugin does not know such a backbone.
            RunFailed: if what was written says something else than what learns.
        """
        policy, home = self._policy, TemporaryHome()
        policy.model.save_pretrained(f"{home.path}/adapter")
        backbone = Backbones(policy.device_name).of(policy.config)
        adapter = AdapterFolder.open(f"{home.path}/adapter")
        trained = TrainedRun(policy.run, adapter, policy.config, backbone, policy.renderer)
        write_served(trained, f"{home.path}/model", policy.device)
        # vLLM wants its share of a card free.
        free_memory()
        return ServedModel(f"{home.path}/model", planned_dtype(policy.config, policy.device), home)

    def _weights(self) -> dict[str, Tensor]:
        model: LadderModel = self._policy.model
        found = {f"{SIDE_PREFIX}{name}": weight for name, weight in model.side.state_dict().items()}
        for name, module in model.bare_backbone.named_modules():
            if isinstance(module, LoraLayer):
                found[f"{name}.weight"] = merged_weight(name, module).to(model.bare_backbone.dtype)
        return {name: weight.detach().cpu().contiguous() for name, weight in found.items()}

    def _send(self, llm: Any, weights: dict[str, Tensor], digest: str) -> None:
        file = Path(self._home.path) / "weights.safetensors"
        save_file(weights, file)
        try:
            answers = llm.collective_rpc("take_weights", args=(str(file),))
        finally:
            file.unlink()
        if not answers or any(taken != digest for taken, _ in answers):
            raise RunFailed(_not_taken(self._policy, "a worker has read other weights than were sent"))
        if left := sorted({name for _, names in answers for name in names}):
            raise RunFailed(_not_taken(self._policy, f"a worker has loaded nothing into {', '.join(left[:3])}"))
        # Keys and values of prompts, by the weights of before.
        if not llm.reset_prefix_cache():
            raise RunFailed(_not_taken(self._policy, "its cache of prompts cannot be emptied"))


class _LowRank(_Following):
    """LoRA: each state is an adapter by another number and name, so that neither weights nor caches can be mistaken."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        rank = policy.model.peft_config["default"].r
        self.options = {
            **self.options,
            "enable_lora": True,
            "max_lora_rank": next(each for each in _RANKS if each >= rank),
            "max_loras": 1,
            "max_cpu_loras": 1,
        }
        self._number = 0

    def served(self) -> ServedModel:
        """The backbone where it lies; a quantised one with dense matrices."""
        policy = self._policy
        if Quantization.NONE is policy.config.quantization is policy.config.head_quantization:
            return served_backbone(policy.config, policy.device)
        home, dtype = TemporaryHome(), planned_dtype(policy.config, policy.device)
        backbone = load_backbone(policy.config, policy.device)
        # Before the first pass: a weight that bitsandbytes has packed can be read no more.
        keep_differentiable(backbone)
        densify(backbone, dtype).save_pretrained(f"{home.path}/model")
        policy.renderer.tokenizer.save_pretrained(f"{home.path}/model")
        del backbone
        free_memory()
        return ServedModel(f"{home.path}/model", dtype, home)

    def _weights(self) -> dict[str, Tensor]:
        # What is written to the adapter's folder, whether it takes gradients at the moment or not.
        found: dict[str, Tensor] = get_peft_model_state_dict(self._policy.model, save_embedding_layers=False)
        return found

    def _send(self, llm: Any, weights: dict[str, Tensor], digest: str) -> Any:
        from vllm.lora.request import LoRARequest

        before, self._number = self._number, self._number + 1
        folder = Path(self._home.path) / str(self._number)
        self._policy.model.save_pretrained(str(folder))
        config = folder / CONFIG_FILE
        values = json.loads(config.read_text(encoding="utf-8"))
        # Of a quantised head; the layers that are adapted are all named.
        config.write_text(json.dumps(values | {"exclude_modules": None, "inference_mode": True}), encoding="utf-8")
        adapter = LoRARequest(f"{self._number}-{digest[:16]}", self._number, str(folder))
        taken = llm.llm_engine.add_lora(adapter)
        held = llm.collective_rpc("list_loras")
        if not taken or not held or any(self._number not in numbers for numbers in held):
            raise RunFailed(_not_taken(self._policy, "a worker does not have the adapter that was sent"))
        shutil.rmtree(folder.with_name(str(before)), ignore_errors=True)
        return adapter


def _not_taken(policy: Policy, why: str) -> str:
    return (
        f"vLLM does not have the weights that {policy.run.path} is at ({why}): nothing is sampled by others. What was "
        "trained is kept; the same command continues."
    )


_CHECKS: dict[type[MethodConfig], Callable[[Any, ModelConfig, str], None]] = {
    LadderMethodConfig: _check_ladder,
    QLoRAMethodConfig: _check_low_rank,
    SuffixMethodConfig: _check_low_rank,
}
_FOLLOWING: dict[str, Callable[[Policy], _Following]] = {LADDER: _Ladder, PEFT: _LowRank}
