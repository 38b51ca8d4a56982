"""What every method must do, run over all of them and over several architectures."""

import pytest
import torch
from transformers import DynamicCache

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.proof import prove
from ladder_cli.methods.registry import load_adapter, method_for
from ladder_cli.nn.loss import completion_cross_entropy
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import parameter_count
from tests.conftest import ARCHITECTURES, EXPERTS, INNER, LATER, loss_curve, random_backbone

LADDER = dict(kind="ladder", learning_rate=1e-3, reduction=2, recompute=False)
SUFFIX = dict(suffix_layers=2, rank=4, alpha=8)
METHODS = {
    "ladder": LadderMethodConfig(name="ladder", **LADDER),
    "ladder@2": LadderMethodConfig(name="ladder@2", layers=2, connections="first", **LADDER),
    "xladder": LadderMethodConfig(name="xladder", connections="last", **LADDER),
    "xladder, deeper": LadderMethodConfig(name="xladder", connections="last", layers=6, delta=2, **LADDER),
    "pairs": LadderMethodConfig(name="pairs", connections=[[2, 1], [4, 3]], layers=3, **LADDER),
    "fixed gate": LadderMethodConfig(name="ladder", gate="fixed", tap_norm="rms", **LADDER),
    "LST": LadderMethodConfig(name="lst", gate="learned", combine="side", init="pruned_magnitude", **LADDER),
    "LST, Fisher": LadderMethodConfig(name="lst", gate="learned", init="pruned_fisher", **LADDER),
    "QST": LadderMethodConfig(
        name="qst", gate="vector", combine="gated", projection="low_rank", projection_rank=4, **LADDER
    ),
    "shared projection": LadderMethodConfig(name="ladder", projection="shared", **LADDER),
    "LAST": LadderMethodConfig(name="last", block="attention", **LADDER),
    "backbone's heads": LadderMethodConfig(name="ladder", attention="backbone", **LADDER),
    "branch": LadderMethodConfig(
        name="branch",
        connections="branch",
        layers=2,
        gate="tap",
        combine="replace",
        projection="none",
        init="cloned",
        **(LADDER | {"reduction": 1}),
    ),
    "suffixed": LadderMethodConfig(name="ladder-suffix", **LADDER, **SUFFIX),
    "suffixed, xladder": LadderMethodConfig(
        name="ladder-suffix",
        connections="last",
        layers=3,
        combine="gated",
        init="pruned_fisher",
        gradient_checkpointing=True,
        **(LADDER | {"recompute": True}),
        **(SUFFIX | {"suffix_layers": 1}),
    ),
    "int8 taps": LadderMethodConfig(name="ladder", int8_taps=True, **LADDER),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4, alpha=8),
    "qlora, checkpointed": QLoRAMethodConfig(
        name="qlora", kind="qlora", learning_rate=1e-3, rank=4, alpha=8, gradient_checkpointing=True
    ),
    "suffix": SuffixMethodConfig(name="suffix", kind="suffix", learning_rate=1e-3, rank=4, alpha=8, layers=2),
    "suffix, checkpointed": SuffixMethodConfig(
        name="suffix", kind="suffix", learning_rate=1e-3, rank=4, alpha=8, layers=1, gradient_checkpointing=True
    ),
}
MODEL = ModelConfig(name="random", hub_id="nowhere/random")
# Settings of a ladder -> architectures whose layers cannot be built, or started, that way.
NOT_TOGETHER = {
    ("block", "attention"): ("opt", "opt-350m"),
    ("attention", "backbone"): ("opt", "opt-350m", "gpt2", "gpt_neox"),
    ("init", "pruned_magnitude"): ("gpt_neox", "phi3-longrope", *EXPERTS),
    ("init", "cloned"): EXPERTS,
    ("kind", "qlora"): ("mixtral", "qwen3_moe"),
}
# With architectures that came later: what asks something of the architecture, each once.
WITH_LATER = ("ladder", "xladder, deeper", "LST", "LAST", "backbone's heads", "branch", "suffixed", "qlora")
CASES = [
    *((architecture, method) for architecture in ARCHITECTURES for method in METHODS),
    *((architecture, method) for architecture in LATER for method in WITH_LATER),
]


def _row(seed: int) -> Batch:
    ids = torch.randint(2, 97, (1, 12), generator=torch.Generator().manual_seed(seed))
    return Batch(ids, ids, torch.ones_like(ids))


SAMPLE = [_row(0), _row(1)]


@pytest.fixture(params=CASES, ids=[f"{architecture}-{method}" for architecture, method in CASES])
def case(request):
    return request.param


@pytest.fixture
def architecture(case) -> str:
    return case[0]


@pytest.fixture
def method(case):
    return method_for(METHODS[case[1]])


@pytest.fixture
def backbone(architecture):
    return random_backbone(architecture)


@pytest.fixture
def model(method, backbone, architecture):
    """The method on the architecture, or its refusal by name where the two do not go together."""
    for (option, value), refusing in NOT_TOGETHER.items():
        if getattr(method.config, option, None) == value and architecture in refusing:
            with pytest.raises(UserError, match=backbone.config.model_type):
                method.attach(LiveTrunk(backbone, MODEL.hub_id), sample=SAMPLE)
            pytest.skip("refused by name")
    return method.attach(LiveTrunk(backbone, MODEL.hub_id), sample=SAMPLE, proven=False)


@pytest.fixture
def starts_as_the_backbone(method) -> None:
    if getattr(method.config, "combine", None) == "side":
        pytest.skip("combine=side reads the side network alone, from the start")


def disturb(model) -> None:
    """Weights as after some training: every trained parameter away from its start."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)


def train(model, ids, steps=4) -> list[float]:
    """The loss before each step of Adam."""
    labels = ids.clone()
    labels[:, :5] = -100
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    return loss_curve(model, optimizer, ids, labels, steps)


def test_an_untrained_method_equals_the_backbone_bit_for_bit(starts_as_the_backbone, model, architecture, token_ids):
    expected = random_backbone(architecture)(token_ids).logits
    assert torch.equal(model.eval()(input_ids=token_ids).logits, expected)


def test_the_proofs_hold_at_the_start_and_after_some_training(model):
    prove(model, untrained=True)
    disturb(model)
    prove(model, untrained=False)


def test_no_gradient_and_no_change_reaches_the_backbone(model, architecture, token_ids):
    before = {name: value.clone() for name, value in random_backbone(architecture).state_dict().items()}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    losses = train(model, token_ids)
    assert losses[-1] < losses[0]
    assert all(parameter.grad is None for parameter in frozen)
    stored = model.state_dict()
    for name, value in before.items():
        matching = [key for key in stored if key.replace(".base_layer", "").endswith(name)]
        assert matching, name
        assert torch.equal(stored[matching[0]], value), name


def test_the_loss_equals_cross_entropy_over_full_logits(model, token_ids):
    disturb(model)
    model.eval()
    labels = token_ids.clone()
    labels[:, :6] = -100
    logits = model(input_ids=token_ids).logits.double()
    expected = torch.nn.functional.cross_entropy(logits[:, 5:-1].flatten(0, 1), labels[:, 6:].flatten())
    torch.testing.assert_close(model(input_ids=token_ids, labels=labels).loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_over_the_hidden_state_is_the_models_own_with_its_gradients(model, token_ids):
    disturb(model)
    model.train()
    labels = token_ids.clone()
    labels[:, :6] = -100
    results = []
    for own in (True, False):
        model.zero_grad()
        torch.manual_seed(5)  # some backbones have dropout, which LoRA trains under
        if own:
            loss = model(input_ids=token_ids, labels=labels).loss
        else:
            hidden = model.hidden(Batch(token_ids, labels))
            loss = completion_cross_entropy(hidden.state, hidden.readout, labels)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 1
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_save_and_load_are_bitwise(model, architecture, token_ids, tmp_path):
    disturb(model)
    model.eval()
    expected = model(input_ids=token_ids).logits
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()
    weights = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert weights < 5 * parameter_count(model, trained=True) + 20_000, "more than the adapter was saved"
    loaded = load_adapter(tmp_path, random_backbone(architecture))
    assert not loaded.training
    assert torch.equal(loaded(input_ids=token_ids).logits, expected)


def test_checkpoint_weights_load_in_place(method, model, token_ids, tmp_path):
    disturb(model)
    model.eval()
    expected = model(input_ids=token_ids).logits
    model.save_pretrained(tmp_path)
    disturb(model)
    assert not torch.equal(model(input_ids=token_ids).logits, expected)
    method.load_weights(model, tmp_path)
    assert torch.equal(model(input_ids=token_ids).logits, expected)


def test_a_cached_forward_equals_the_full_one(model, token_ids):
    disturb(model)
    model.eval()
    full = model(input_ids=token_ids).logits
    cache = DynamicCache(config=model.config)
    pieces = [
        model(input_ids=piece, past_key_values=cache, use_cache=True).logits
        for piece in token_ids.split([9, 1, 7], dim=1)
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}],
    ids=["greedy", "beams", "two beams returned"],
)
def test_cached_generation_equals_uncached(model, token_ids, options):
    disturb(model)
    model.eval()
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    cached = model.generate(input_ids=token_ids, **options)
    assert torch.equal(cached, model.generate(input_ids=token_ids, use_cache=False, **options))


def test_sampling_depends_on_the_seed_alone(model, token_ids):
    disturb(model)
    model.eval()
    options = {"max_new_tokens": 8, "do_sample": True, "eos_token_id": None, "pad_token_id": 0}
    torch.manual_seed(5)
    first = model.generate(input_ids=token_ids, **options)
    torch.manual_seed(5)
    assert torch.equal(model.generate(input_ids=token_ids, **options), first)


def test_left_padding_changes_nothing(model, token_ids):
    disturb(model)
    model.eval()
    lengths = (17, 11, 5)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    alone = [
        model.generate(input_ids=row[None, -n:], **options)[0, n:] for row, n in zip(token_ids, lengths, strict=True)
    ]
    padded, mask = token_ids.clone(), torch.ones_like(token_ids)
    for row, n in enumerate(lengths):
        padded[row, : 17 - n] = 0
        mask[row, : 17 - n] = 0
    together = model.generate(input_ids=padded, attention_mask=mask, **options)[:, 17:]
    for row, expected in zip(together, alone, strict=True):
        assert torch.equal(row, expected)


def test_right_padding_changes_no_loss(model, token_ids):
    disturb(model)
    model.eval()
    row = token_ids[:1, :12]
    labels = row.clone()
    labels[:, :4] = -100
    expected = model(input_ids=row, attention_mask=torch.ones_like(row), labels=labels).loss
    padded = torch.cat([row, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    padded_labels = torch.cat([labels, torch.full((1, 5), -100)], dim=1)
    mask = (padded != 0).long()
    torch.testing.assert_close(model(input_ids=padded, attention_mask=mask, labels=padded_labels).loss, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_of_the_backbone_is_kept_for_the_backward_pass_of_a_ladder(backbone, token_ids):
    model = method_for(METHODS["ladder"]).attach(LiveTrunk(backbone, MODEL.hub_id))
    disturb(model)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model.train()(input_ids=token_ids, labels=token_ids)
    assert kept
    frozen = {parameter.data_ptr() for parameter in backbone.parameters()}
    sizes = sum(
        t.untyped_storage().nbytes()
        for t in {t.untyped_storage().data_ptr(): t for t in kept}.values()
        if t.untyped_storage().data_ptr() not in frozen
    )
    wide = token_ids.numel() * 64 * 4
    # Taps (L + 1) and the loss's one gradient are as wide as the backbone; all else is the side network's own.
    taps_and_gradient = (4 + 1 + 2) * wide
    side = 4 * 40 * token_ids.numel() * 32 * 4
    assert sizes < taps_and_gradient + side
    assert not [t.shape for t in kept if t.data_ptr() not in frozen and t.shape[-1:] == (INNER,)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_never_holds_the_full_logits(backbone, token_ids):
    model = method_for(METHODS["ladder"]).attach(LiveTrunk(backbone, MODEL.hub_id), loss_chunk=4)
    shapes = []
    backbone.lm_head.register_forward_hook(lambda module, args, output: shapes.append(len(output)))
    labels = token_ids.clone()
    labels[:, :8] = -100
    model(input_ids=token_ids, labels=labels).loss.backward()
    assert max(shapes) == 4
    assert sum(shapes) == 27
