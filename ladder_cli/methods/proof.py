"""Proof, on a few tokens, that a method and an architecture go together: for whatever was loaded, known or not.

Side layers are made of the backbone's own classes, and what those expect of a cache, a mask or a config changes from
architecture to architecture. A wrong guess often raises nothing: a cache that stays empty, or an output scale that is
left out, just gives other numbers. So they are compared, before a run and before an evaluation.

1. An untrained side network (or LoRA) leaves the logits as the backbone's own `forward` gives them.
2. `generate` with the key-value cache, over rows of different length padded on the left, sees what one pass over the
   whole rows sees: in the logits, and in the last side layer.
3. Trained weights are finite, and a gradient reaches each of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn

from ladder_cli.errors import UserError
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.layer_weights import is_packed
from ladder_cli.trunk.base import TrainableModule
from ladder_cli.trunk.parts import refused_by_name

_PROMPT, _PADDING, _NEW = 8, 3, 4
# Largest relative difference (of norms) that rounding explains. What a lost cache or scale leads to is near one.
_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
_TOLERANCE_INT8 = 0.2  # its products choose their outlier columns by all tokens of a call


def prove(model: Any, untrained: bool) -> None:
    """Hold a model against itself.

    Three short passes over 2 x 11 tokens and four cached steps (and with `untrained` one backward pass). Random number
    generators, gradients and the training mode are left as they were.

    Args:
        model: what a method attached; without `untrained` it may be a backbone alone.
        untrained: it is at its start and will be trained. What the first proof says is asked only of shapes that start
            as the backbone: not of `combine=side`.

    Raises:
        UserError: if a proof fails; the line names the architecture and the proof.
    """
    backbone = model.bare_backbone if isinstance(model, TrainableModule) else model
    with _undisturbed(model), refused_by_name(backbone, "it does not run"):
        _Probe(model, backbone).run(untrained)


class _Probe:
    def __init__(self, model: Any, backbone: Any) -> None:
        self.model, self.backbone = model, backbone
        device = next((p.device for p in backbone.parameters() if p.device.type != "cpu"), torch.device("cpu"))
        vocabulary = backbone.get_input_embeddings().num_embeddings
        # Any tokens will do, as long as neighbours differ.
        self.ids = (torch.arange(2 * _PROMPT, device=device) * 7 + 3).view(2, _PROMPT) % vocabulary
        self.mask = torch.ones_like(self.ids)
        self.mask[1, :_PADDING] = 0

    @property
    def tolerance(self) -> float:
        """Of what was computed until now: bitsandbytes packs 4-bit weights at their first product on a CPU."""
        modules = list(self.backbone.modules())
        if any(isinstance(module, bitsandbytes.nn.Linear8bitLt) for module in modules):
            return _TOLERANCE_INT8
        # Packed ones are multiplied in bfloat16, whatever the type of the states.
        return _TOLERANCE[torch.bfloat16 if any(map(is_packed, modules)) else self.backbone.dtype]

    def run(self, untrained: bool) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                self._refuse(f"its trained weight {name} is not finite")
        with self._side_states() as states, torch.no_grad():
            generated = self.model.generate(
                input_ids=self.ids,
                attention_mask=self.mask,
                max_new_tokens=_NEW,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        cached_logits = torch.stack(list(generated.logits), dim=1)
        cached_states = torch.cat(states, dim=1) if states else None
        inputs = self._whole(generated.sequences[:, :-1])
        gradients = untrained and any(parameter.requires_grad for parameter in self.model.parameters())
        with self._side_states() as states, torch.set_grad_enabled(gradients):
            logits = self.model(**inputs).logits
        if not torch.isfinite(logits[self._seen(inputs)]).all():
            self._refuse("its logits are not finite (float16 ends at 65,504; bfloat16 does not)")
        if untrained:
            self._same_as_the_backbone(inputs, logits.detach())
        difference = _relative(cached_logits, logits[:, _PROMPT - 1 :].detach())
        if not difference <= self.tolerance:
            self._refuse(f"with the key-value cache it gives other logits than without (by {difference:.2g})")
        if cached_states is not None:
            new = slice(_PROMPT, None)
            difference = _relative(cached_states[:, new], states[0][:, new].detach())
            if not difference <= self.tolerance:
                self._refuse(f"with the key-value cache its side layers see something else (by {difference:.2g})")
        if gradients:
            # The states too: at the start nothing of them is in the logits.
            sum((value.float().square().mean() for value in states), logits.float().square().mean()).backward()
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad and parameter.grad is None:
                    self._refuse(f"no gradient reaches its trained weight {name}")
                if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                    self._refuse(f"the gradient of its trained weight {name} is not finite")

    def _whole(self, ids: Tensor) -> dict[str, Any]:
        """Inputs of one pass over the generated rows, with the positions that `generate` gives them."""
        mask = torch.cat([self.mask, self.mask.new_ones(2, ids.shape[1] - _PROMPT)], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}

    @staticmethod
    def _seen(inputs: dict[str, Any]) -> Tensor:
        return inputs["attention_mask"].bool()

    @torch.no_grad()
    def _same_as_the_backbone(self, inputs: dict[str, Any], logits: Tensor) -> None:
        if not self.model.starts_as_the_backbone:
            return
        seen, expected = self._seen(inputs), self.model.backbone_logits(**inputs)
        difference = _relative(logits[seen][None], expected[seen][None])
        if not difference <= self.tolerance:
            self._refuse(f"an untrained method changes its logits (by {difference:.2g})")

    @contextmanager
    def _side_states(self) -> Iterator[list[Tensor]]:
        """Collect what the last side layer puts out, a tensor `[batch, tokens, d_s]` for each pass."""
        states: list[Tensor] = []
        if not isinstance(self.model, LadderModel):
            yield states
            return

        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        # Not a hook on the layer alone: its weights are cast by calling it functionally, which runs hooks all the same.
        handle = self.model.side.layers[-1].register_forward_hook(keep)
        try:
            yield states
        finally:
            handle.remove()

    def _refuse(self, finding: str) -> None:
        kind = f"{type(self.backbone).__name__} ({self.backbone.config.model_type})"
        raise UserError(f"{kind} is not supported: {finding}. docs/models.md lists what is.")


def _relative(actual: Tensor, expected: Tensor) -> float:
    """The largest of the rows' differences `[batch, tokens, d]`, each the median of its tokens'.

    The median, since in bfloat16 a tie between experts may go the other way for a single token.
    """
    actual, expected = actual.float(), expected.float()
    by_token = (actual - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-30)
    return float(by_token.median(dim=-1).values.max())


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Random numbers, gradients and the training mode as they were."""
    devices = {parameter.device.index for parameter in model.parameters() if parameter.device.type == "cuda"}
    training = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=sorted(index for index in devices if index is not None)):
        model.eval()
        try:
            yield
        finally:
            for parameter in model.parameters():
                parameter.grad = None
            for module, mode in training:
                module.training = mode
