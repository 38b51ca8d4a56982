"""The backbones of one evaluation: each is identified once and loaded once, and adapters take turns on it."""

import gc
from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.errors import UserError
from ladder_cli.generate.decoding import ModelLimits, read_limits
from ladder_cli.methods.peft_adapter import LoRAHost
from ladder_cli.methods.proof import prove
from ladder_cli.methods.registry import load_adapter
from ladder_cli.nn.adapter import LADDER, PEFT, AdapterFolder
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.ladder_config import has_suffix
from ladder_cli.trunk.base import Trunk
from ladder_cli.trunk.loading import load_backbone, load_tokenizer, resolve_device
from ladder_cli.trunk.open import KINDS, open_trunk
from ladder_cli.trunk.weights_identity import local_weights_identity


class Backbones:
    """Backbones by their config. One at a time is in memory: the one that was asked for a model last."""

    def __init__(self, device: str, streaming: StreamingConfig | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            device: as `hardware.device` names it.
            streaming: where layers are while they do not compute; None: resident.

        Raises:
            UserError: for `trunk.residency=auto`, which is for training.
        """
        self.device = resolve_device(device)
        self._streaming = streaming or StreamingConfig()
        if self._streaming.residency is Residency.AUTO:
            raise UserError(
                "trunk.residency=auto is for training, whose memory is predicted: an evaluation takes resident, host "
                "or disk."
            )
        self._known: dict[str, SharedBackbone] = {}

    def of(self, model: ModelConfig) -> "SharedBackbone":
        """The backbone of a config; nothing of its weights is read yet."""
        key = repr(model)
        if key not in self._known:
            self._known[key] = SharedBackbone(model, self.device, self._alone, self._streaming)
        return self._known[key]

    def _alone(self, wanted: "SharedBackbone") -> None:
        for backbone in self._known.values():
            if backbone is not wanted:
                backbone.release()


class SharedBackbone:
    """A frozen backbone and, beside it or on it, one adapter at a time.

    What an adapter gives here is bit for bit what it gives on a backbone that was loaded for it alone. Ladders only
    read the backbone, so that a side network takes the place of another. LoRA changes how the backbone computes:
    adapters of that kind follow one another (`LoRAHost`), and with the kind the backbone is loaded anew. It is also
    loaded anew for each ladder with a suffix, and after any failure.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        before_loading: Callable[["SharedBackbone"], None],
        streaming: StreamingConfig,
    ) -> None:
        """`before_loading` is called with this object before weights are read; `streaming.residency` is never auto."""
        self._streaming = streaming
        self._trunk: Trunk | None = None
        self._config, self._device, self._before_loading = config, device, before_loading
        self._lora: LoRAHost | None = None
        self._ladder: LadderModel | None = None
        self._bare: PreTrainedModel | None = None
        self._mounted: AdapterFolder | None = None
        self._model: nn.Module | None = None
        self._turns = 0

    @cached_property
    def identity(self) -> str | None:
        """Of the weights, by content; None where they are on the hub and not on this machine.

        Raises:
            UserError: if a weights' file is missing or damaged.
        """
        return local_weights_identity(self._config.location, self._config.revision)

    @cached_property
    def limits(self) -> ModelLimits:
        """What the model says about generation."""
        return read_limits(self._config)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return load_tokenizer(self._config)

    def bare(self) -> nn.Module:
        """The backbone alone, in evaluation mode, held against itself (`prove`).

        Raises:
            UserError: if it cannot be loaded or is not supported.
        """
        if self._bare is None:
            self.release()
            backbone = self._load()
            prove(backbone, untrained=False)
            self._bare = backbone
        return self._bare

    def with_adapter(self, folder: AdapterFolder) -> nn.Module:
        """The backbone with an adapter, in evaluation mode, held against itself (`prove`).

        A model that was handed out before is not to be used any more.

        Raises:
            UserError: if the backbone cannot be loaded, the adapter is damaged, or the two do not go together.
        """
        if self._model is None or self._mounted is not folder:
            try:
                self._model = self._taking_turns(folder)
                prove(self._model, untrained=False)
            except BaseException:
                self.release()
                raise
            self._mounted = folder
        return self._model

    def release(self) -> None:
        """Free the memory; what is asked for next is loaded anew."""
        held = any(part is not None for part in (self._bare, self._ladder, self._lora, self._model))
        self._bare = self._ladder = self._lora = self._model = self._mounted = self._trunk = None
        if held:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _taking_turns(self, folder: AdapterFolder) -> nn.Module:
        hosts = {PEFT: self._with_lora, LADDER: self._with_ladder}
        if folder.loader in hosts and not has_suffix(folder):
            return hosts[folder.loader](folder)
        # A suffix changes the backbone's layers, and another kind may have changed them in ways that nobody here knows:
        # it is loaded for each anew.
        self.release()
        return load_adapter(folder, self._load())

    def _with_lora(self, folder: AdapterFolder) -> nn.Module:
        if self._lora is None:
            self.release()
            self._lora = LoRAHost(self._load())
        return self._lora.put_on(folder)

    def _with_ladder(self, folder: AdapterFolder) -> nn.Module:
        if self._ladder is None:
            self.release()
            self._ladder = LadderModel.from_pretrained(folder, backbone=self._load())
            return self._ladder
        before = self._ladder.active_adapter
        self._turns += 1
        self._ladder.load_adapter(folder, f"turn {self._turns}")
        self._ladder.delete_adapter(before)
        return self._ladder

    def _load(self) -> PreTrainedModel:
        self._before_loading(self)
        if self._streaming.residency is Residency.RESIDENT:
            return load_backbone(self._config, self._device)
        # Layers come and go by its hooks, as long as it is there.
        self._trunk = open_trunk(self._config, self._device, KINDS[self._streaming.residency], self._streaming)
        return self._trunk.whole()
