"""What every kind of trunk must do, run over the dictionary of them."""

import copy
import gc
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import WHOLE, Batch, TapRequest
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.open import TRUNKS, TrunkKind, open_trunk
from ladder_cli.trunk.streamed import SOURCES
from ladder_cli.trunk.weights_identity import weights_identity
from tests.conftest import random_backbone
from tests.contract.test_methods import METHODS
from tests.trunk.copier import ring_in_memory

CPU = torch.device("cpu")
MODEL = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", side_reduction=2)
LAYERS = 6  # of the embedded model
STREAMED = (TrunkKind.HOST, TrunkKind.DISK)
WINDOW = StreamingConfig().window
ALL = TapRequest(frozenset(range(1, LAYERS + 1)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process that is all the processes, for trunks that are sharded over them."""
    meeting = tmp_path_factory.mktemp("meeting") / "place"
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def layer_files(tmp_path_factory):
    """A place for the files of streamed trunks, and a ring of buffers in the memory of a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(SOURCES, ("cpu", Residency.HOST), ring_in_memory)
        yield


@pytest.fixture(params=list(TrunkKind))
def kind(request, alone, layer_files):
    return request.param


def settled(kind: TrunkKind) -> LiveTrunk:
    """A trunk as after a method was attached."""
    trunk = open_trunk(MODEL, CPU, kind)
    trunk.settle(trunk.whole())
    return trunk


@pytest.fixture
def trunk(kind):
    return settled(kind)


@pytest.fixture
def batch():
    ids = torch.randint(5, 400, (2, 13), generator=torch.Generator().manual_seed(0))
    return Batch(ids, ids.clone(), row_ids=(3, 7))


def layers_that_ran(trunk) -> list[int]:
    """Filled by every later pass with the numbers of the layers that run."""
    ran: list[int] = []
    for number, layer in enumerate(trunk.parts.layers, start=1):
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    return ran


def test_every_kind_can_be_opened():
    assert set(TRUNKS) == set(TrunkKind)


def test_taps_are_the_backbones_own_hidden_states(trunk, batch):
    expected = random_states(batch)
    taps = trunk.taps(ALL, batch)
    assert list(taps.rungs) == list(range(LAYERS + 1))
    for number in range(LAYERS):
        assert torch.equal(taps.rungs[number], expected.hidden_states[number]), number
    # Transformers gives the last state behind the final norm.
    assert taps.final is taps.rungs[LAYERS]
    assert torch.equal(trunk.parts.final_norm(taps.final), expected.hidden_states[LAYERS])
    assert not any(rung.requires_grad for rung in taps.rungs.values())
    assert taps.embed is not None
    assert torch.equal(taps.embed(), taps.rungs[0])


def random_states(batch: Batch):
    """What the backbone itself says of a batch, loaded apart from any trunk."""
    with torch.no_grad():
        return open_trunk(MODEL, CPU).whole()(**batch.inputs, output_hidden_states=True)


def test_a_pass_goes_no_further_than_the_request(trunk, batch):
    ran = layers_that_ran(trunk)
    taps = trunk.taps(TapRequest(frozenset({1, 3}), final=False), batch)
    assert ran == [1, 2, 3]
    assert list(taps.rungs) == [0, 1, 3]
    assert taps.final is None
    ran.clear()
    assert list(trunk.taps(TapRequest(frozenset(), final=False), batch).rungs) == [0]
    assert len(ran) <= 1  # the first layer may have been entered, and did nothing
    ran.clear()
    assert list(trunk.taps(WHOLE, batch).rungs) == [0]
    assert ran == list(range(1, LAYERS + 1))


def test_a_second_request_gives_what_it_would_give_alone(kind, trunk, batch):
    requests = [TapRequest(frozenset({2}), final=False), ALL, TapRequest(frozenset({5}))]
    for request in requests:
        fresh, again = settled(kind).taps(request, batch), trunk.taps(request, batch)
        assert fresh.rungs.keys() == again.rungs.keys()
        assert all(torch.equal(fresh.rungs[number], again.rungs[number]) for number in fresh.rungs)
        assert (fresh.final is None) == (again.final is None)


def test_one_request_serves_several(trunk, batch):
    one, other = TapRequest(frozenset({1}), final=False), TapRequest(frozenset({4}))
    both = trunk.taps(one | other, batch)
    for request in (one, other):
        alone = trunk.taps(request, batch)
        assert all(torch.equal(alone.rungs[number], both.rungs[number]) for number in alone.rungs)
    assert both.final is not None


def test_nothing_is_left_behind_by_a_pass(trunk, batch):
    before = [len(layer._forward_hooks) for layer in trunk.parts.layers]
    trunk.taps(ALL, batch)
    with pytest.raises(IndexError):
        trunk.taps(ALL, Batch(torch.tensor([[10**6]])))  # no such token
    assert [len(layer._forward_hooks) for layer in trunk.parts.layers] == before
    expected = random_states(batch).logits
    assert torch.equal(trunk.whole()(**batch.inputs).logits, expected)


def test_packed_rows_see_their_own_document_alone(trunk, batch):
    first, second = batch.input_ids[:1, :6], batch.input_ids[:1, 6:13]
    positions = torch.cat([torch.arange(6), torch.arange(7)])[None]
    packed = Batch(batch.input_ids[:1], position_ids=positions)
    together, apart = trunk.taps(ALL, packed), [trunk.taps(ALL, Batch(piece)) for piece in (first, second)]
    for number in range(1, LAYERS + 1):
        expected = torch.cat([taps.rungs[number] for taps in apart], dim=1)
        torch.testing.assert_close(together.rungs[number], expected, rtol=1e-3, atol=1e-4)


def test_the_identity_is_that_of_the_weights_wherever_they_lie(kind, tmp_path):
    trunk = open_trunk(MODEL, CPU, kind)
    assert trunk.identity is None
    trunk.identity = weights_identity(MODEL.location)
    shutil.copytree(MODEL.location, tmp_path / "moved")
    moved = open_trunk(ModelConfig(name="moved", path=str(tmp_path / "moved"), dtype="float32"), CPU, kind)
    assert moved.identify() == moved.identity == trunk.identity
    changed = open_trunk(MODEL, CPU).whole()
    next(changed.parameters()).data[0] += 1
    changed.save_pretrained(tmp_path / "changed")
    other = open_trunk(ModelConfig(name="changed", path=str(tmp_path / "changed"), dtype="float32"), CPU, kind)
    assert other.identify() != trunk.identity
    with pytest.raises(ValueError, match="the weights of this trunk are"):
        trunk.identity = "another"


def test_weights_are_hashed_once(kind, monkeypatch):
    hashed = []
    monkeypatch.setattr("ladder_cli.trunk.live.weights_identity", lambda *where: hashed.append(where) or "abc")
    trunk = open_trunk(MODEL, CPU, kind)
    assert (trunk.identify(), trunk.identify()) == ("abc", "abc")
    assert len(hashed) == 1


def test_the_cost_follows_the_request(kind, trunk):
    whole, half = trunk.cost(WHOLE), trunk.cost(TapRequest(frozenset({3}), final=False))
    assert whole.parameters == half.parameters == sum(weight.numel() for weight in trunk.whole().parameters())
    assert whole.layers == LAYERS
    assert whole.flops_per_token == 2 * whole.parameters
    layer = sum(weight.numel() for weight in trunk.parts.layers[0].parameters())
    assert whole.flops_per_token - half.flops_per_token == 2 * 3 * layer
    if kind not in STREAMED:
        assert whole.resident_bytes == 4 * whole.parameters  # one process holds all, float32
        assert whole.moved_bytes == 0
        return
    assert whole.moved_bytes == 2 * half.moved_bytes == 4 * LAYERS * layer
    assert whole.resident_bytes == half.resident_bytes == 4 * (whole.parameters - (LAYERS - WINDOW) * layer)


@pytest.mark.parametrize("name", ["ladder", "xladder", "suffixed", "qlora"])
def test_an_untrained_method_is_the_backbone(name, kind, batch):
    refuse_gradients_if_streamed(name, kind)
    model = method_for(METHODS[name]).attach(open_trunk(MODEL, CPU, kind)).eval()
    assert torch.equal(model(**batch.inputs).logits, random_states(batch).logits)


@pytest.mark.parametrize("name", ["ladder", "xladder", "LST", "branch", "qlora", "suffix", "suffixed"])
def test_the_state_before_the_head_gives_the_logits(name, kind, batch):
    refuse_gradients_if_streamed(name, kind)
    torch.manual_seed(0)
    trunk = open_trunk(MODEL, CPU, kind)
    model = method_for(METHODS[name]).attach(trunk).eval()
    expected = model(**batch.inputs).logits
    hidden = model.hidden(batch)
    assert torch.equal(hidden.readout(hidden.state), expected)
    if model.request is None:
        assert hidden.reference is None
        return
    given = model.hidden(batch, trunk.taps(ALL, batch))
    assert torch.equal(given.readout(given.state), expected)
    if name in (
        "suffix",
        "suffixed",
    ):  # its adapters are in the backbone's own layers, whose last state is not the bare one's
        assert given.reference is None
        return
    assert given.reference is not None
    bare = random_states(batch).logits
    torch.testing.assert_close(given.readout(given.reference), bare, rtol=0, atol=0)
    assert (hidden.reference is not None) == model.request.final


def refuse_gradients_if_streamed(name: str, kind: TrunkKind) -> None:
    """What sends gradients through the whole backbone is refused in a line, and the test ends."""
    if name != "qlora" or kind not in STREAMED:
        return
    with pytest.raises(UserError, match=r"trunk\.residency=resident"):
        method_for(METHODS[name]).attach(open_trunk(MODEL, CPU, kind))
    pytest.skip("refused")


@pytest.mark.parametrize("name", ["ladder", "xladder", "branch", "suffix", "suffixed"])
def test_loss_and_gradients_are_those_of_a_live_trunk(name, kind, batch):
    def trained(kind: TrunkKind):
        torch.manual_seed(0)
        model = method_for(METHODS[name]).attach(open_trunk(MODEL, CPU, kind)).train()
        for _ in range(2):  # the second pass finds what the first one has left
            loss = model(input_ids=batch.input_ids, labels=batch.labels).loss
            loss.backward()
        return loss, {key: value.grad for key, value in model.named_parameters() if value.requires_grad}

    (loss, gradients), (expected, others) = trained(kind), trained(TrunkKind.LIVE)
    assert torch.equal(loss, expected)
    assert gradients.keys() == others.keys()
    assert all(torch.equal(gradients[key], others[key]) for key in others)


def test_left_padding_and_a_cache_change_no_generated_token(kind, batch):
    torch.manual_seed(0)
    model = method_for(METHODS["xladder"]).attach(open_trunk(MODEL, CPU, kind)).eval()
    torch.nn.init.normal_(model.side.combine.up.weight, std=0.02)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    padded, mask = batch.input_ids.clone(), torch.ones_like(batch.input_ids)
    padded[1, :5], mask[1, :5] = 0, 0
    together = model.generate(input_ids=padded, attention_mask=mask, **options)[:, 13:]
    assert torch.equal(
        together, model.generate(input_ids=padded, attention_mask=mask, use_cache=False, **options)[:, 13:]
    )
    for row, start in enumerate((0, 5)):
        alone = model.generate(input_ids=padded[row : row + 1, start:], use_cache=False, **options)
        assert torch.equal(alone[0, -5:], together[row])


def test_hooks_go_with_the_trunk_and_a_copied_model_watches_itself(token_ids):
    backbone = random_backbone("llama")
    model = LadderModel.on(backbone, connect(4, "aligned"), reduction=2)
    twin = copy.deepcopy(model)
    assert twin.trunk.whole() is twin.backbone is not backbone
    expected = model(token_ids).logits
    for weight in backbone.parameters():
        weight.data.zero_()
    assert torch.equal(twin(token_ids).logits, expected)
    del model
    gc.collect()
    assert not any(layer._forward_hooks for layer in backbone.model.layers)


def test_row_ids_reach_the_trunk(batch):
    seen = []
    model = LadderModel.on(random_backbone("llama"), connect(4, "aligned"), reduction=2)
    trunk = model.trunk
    model.trunk = SimpleNamespace(taps=lambda request, rows: seen.append(rows.row_ids) or trunk.taps(request, rows))
    model.hidden(Batch(batch.input_ids % 97, row_ids=batch.row_ids))
    assert seen == [(3, 7)]


def test_settings_of_a_run_hold_for_adapters_that_come_later(tmp_path):
    runtime = Runtime(recompute=True, int8_taps=True, loss_chunk=7)
    model = LadderModel.on(random_backbone("llama"), connect(4, "aligned"), reduction=2, runtime=runtime)
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path, "second")
    assert model.runtime == model.side.runtime == runtime
    loaded = LadderModel.from_pretrained(tmp_path, backbone=random_backbone("llama"), runtime=runtime)
    assert loaded.runtime == loaded.side.runtime == runtime
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
