"""The ladder against the mathematics of docs/ladder.md, written out in plain tensor operations and float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ladder_cli.bench.counts import saved_activation_bytes
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.trunk.loading import parameter_count
from tests.conftest import random_backbone

L, WIDTH, HEADS, KV_HEADS, EPSILON, THETA = 4, 64, 4, 2, 1e-6, 10_000.0
SHAPES = {
    "ladder": ("aligned", None, {}),
    "xladder": ("last", 6, {}),
    "fixed": ("even", 2, {"gate": "fixed"}),
    "learned, side": ("aligned", None, {"gate": "learned", "combine": "side"}),
    "vector, gated, low rank": (
        "aligned", None, {"gate": "vector", "combine": "gated", "projection": "low_rank", "projection_rank": 4}
    ),
    "shared, normed": ("aligned", None, {"projection": "shared", "tap_norm": "rms"}),
    "attention alone": ("first", 3, {"block": "attention"}),
    "the backbone's heads": ("aligned", None, {"attention": "backbone"}),
}  # fmt: skip


def rms(x: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPSILON) * weight


def rotate(x: Tensor) -> Tensor:
    """Rotary positions of `[batch, heads, tokens, size]`."""
    size = x.shape[-1]
    frequency = THETA ** (-torch.arange(0, size, 2).double() / size)
    angle = torch.arange(x.shape[2]).double()[:, None] * frequency
    first, second = x[..., : size // 2], x[..., size // 2 :]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


def attention(w: dict[str, Tensor], x: Tensor, heads: int, kv_heads: int) -> Tensor:
    def split(name: str, count: int) -> Tensor:
        y = torch.einsum("btd,od->bto", x, w[f"self_attn.{name}.weight"])
        if f"self_attn.{name}.bias" in w:
            y = y + w[f"self_attn.{name}.bias"]
        return y.unflatten(-1, (count, -1)).transpose(1, 2)

    q, k, v = rotate(split("q_proj", heads)), rotate(split("k_proj", kv_heads)), split("v_proj", kv_heads)
    k, v = (y.repeat_interleave(heads // kv_heads, dim=1) for y in (k, v))
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5
    future = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    mixed = torch.einsum("bhqk,bhkd->bqhd", weights, v).flatten(2)
    return torch.einsum("bto,do->btd", mixed, w["self_attn.o_proj.weight"])


def block(w: dict[str, Tensor], x: Tensor, heads: int, kv_heads: int) -> Tensor:
    x = x + attention(w, rms(x, w["input_layernorm.weight"]), heads, kv_heads)
    if "mlp.gate_proj.weight" not in w:
        return x
    y = rms(x, w["post_attention_layernorm.weight"])
    gate = y @ w["mlp.gate_proj.weight"].T
    return x + (gate * torch.sigmoid(gate) * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def reference(model: LadderModel, ids: Tensor) -> Tensor:
    """Logits, float64."""
    w = {name: value.double() for name, value in model.backbone.state_dict().items()}
    side = {name: value.double() for name, value in model.side.state_dict().items()}
    config = model.config
    h = [w["model.embed_tokens.weight"][ids]]
    for i in range(L):
        h.append(block(part(w, f"model.layers.{i}."), h[-1], HEADS, KV_HEADS))

    def tap(j: int, i: int) -> Tensor:
        x = rms(h[i]) if config.tap_norm == "rms" else h[i]
        name = "down.by_rung." + ("shared" if config.projection == "shared" else str(j))
        if config.projection == "low_rank":
            return x @ side[f"{name}.0.weight"].T @ side[f"{name}.1.weight"].T
        return x @ side[f"{name}.weight"].T

    state = tap(0, 0)
    sources = {j: i for i, j in config.pairs}
    for j in range(1, config.side_layers + 1):
        if j in sources:
            p = tap(j, sources[j])
            if config.gate == "sum":
                state = state + p
            else:
                alpha: Tensor | float = 0.5
                if config.gate == "learned":
                    alpha = torch.sigmoid(side[f"gates.{j}.logit"] / 0.1)
                elif config.gate == "vector":
                    alpha = side[f"gates.{j}.beta"]
                state = alpha * state + (1 - alpha) * p
        shape = config.side_shape
        state = block(part(side, f"layers.{j - 1}."), state, shape["heads"], shape["kv_heads"])
    up = side["combine.up.weight"]
    if config.combine == "side":
        normed = rms(state, side["combine.norm.weight"]) @ up.T
    elif config.combine == "gated":
        share = side["combine.backbone_share"]
        normed = rms(share * h[L] + (1 - share) * state @ up.T, w["model.norm.weight"])
    else:
        normed = rms(h[L] + state @ up.T, w["model.norm.weight"])
    return normed @ w["lm_head.weight"].T


@pytest.fixture(params=["llama", "qwen2"])
def architecture(request) -> str:
    return request.param


@pytest.fixture(params=SHAPES, ids=list(SHAPES))
def ladder(request, architecture) -> LadderModel:
    pattern, layers, shape = SHAPES[request.param]
    torch.manual_seed(2)
    model = LadderModel.on(random_backbone(architecture), connect(L, pattern, layers), reduction=2, **shape).eval()
    for parameter in model.side.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def test_a_ladder_agrees_with_the_mathematics(ladder, token_ids):
    with torch.no_grad():
        torch.testing.assert_close(ladder(token_ids).logits.double(), reference(ladder, token_ids), rtol=0, atol=1e-5)


def test_gradients_agree_with_finite_differences_of_the_mathematics(ladder, token_ids):
    # Transformers' norms and rotations compute in float32 whatever they are given, so differences of the model itself
    # would be noise; those of the reference are exact.
    ladder.double()
    ids = token_ids[:2, :9]
    ladder(input_ids=ids, labels=ids).loss.backward()

    @torch.no_grad()
    def loss() -> Tensor:
        return cross_entropy(reference(ladder, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    generator = torch.Generator().manual_seed(4)
    for name, parameter in ladder.side.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values, step = parameter.detach().clone(), 1e-5
        parameter.data = values + step * direction
        above = loss()
        parameter.data = values - step * direction
        below = loss()
        parameter.data = values
        expected = (above - below) / (2 * step)
        actual = (parameter.grad * direction).sum()
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_recomputed_layers_give_the_same_gradients_and_keep_less(ladder, token_ids):
    def run() -> tuple[int, list[Tensor]]:
        kept = saved_activation_bytes(ladder, token_ids, token_ids)
        ladder.zero_grad()
        ladder.train()(input_ids=token_ids, labels=token_ids).loss.backward()
        return kept, [parameter.grad.clone() for parameter in ladder.side.parameters()]

    kept, gradients = run()
    # Its name before transformers 5.2x.
    getattr(ladder, "activation_checkpointing_enable", ladder.gradient_checkpointing_enable)()
    kept_less, recomputed = run()
    assert kept_less < kept
    for expected, actual in zip(gradients, recomputed, strict=True):
        assert torch.equal(expected, actual)


def hand_count(model: LadderModel) -> int:
    """Trained parameters of a Llama or Qwen2 ladder by a formula."""
    c = model.config
    d, s, inner = WIDTH, WIDTH // c.reduction, model.side.config.intermediate_size
    heads, kv, size = (c.side_shape[name] for name in ("heads", "kv_heads", "head_size"))
    layer = s * size * (heads + 2 * kv) + heads * size * s + s
    if model.backbone.config.model_type == "qwen2":
        layer += size * (heads + 2 * kv)
    if c.block == "full":
        layer += 3 * s * inner + s
    rungs = len(c.pairs) + 1
    projection = {"full": rungs * d * s, "shared": d * s, "low_rank": rungs * c.projection_rank * (d + s)}
    gates = {"sum": 0, "fixed": 0, "learned": len(c.pairs), "vector": len(c.pairs) * s}
    combine = {"residual": d * s, "side": d * s + s, "gated": d * s + 1}
    return c.side_layers * layer + projection[c.projection] + gates[c.gate] + combine[c.combine]


def test_the_number_of_trained_parameters_is_that_of_the_formula(ladder):
    assert parameter_count(ladder, trained=True) == hand_count(ladder)
