"""A checkpoint taken apart is what Transformers would have loaded; it is made once, whatever comes between."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk import layer_folder as module
from ladder_cli.trunk.base import Batch, TapRequest
from ladder_cli.trunk.layer_folder import filled, layer_folder, prepare_layers
from ladder_cli.trunk.loading import has_sdpa, load_backbone
from ladder_cli.trunk.parts import anatomy_of, keep_differentiable
from ladder_cli.trunk.stored_modules import taken_apart
from ladder_cli.trunk.streamed import SOURCES, open_streamed
from tests.conftest import ARCHITECTURES, EXPERTS, LATER, random_backbone
from tests.trunk.copier import ring_in_memory, staged_in_memory

CPU = torch.device("cpu")
LAYERS = 6
FORMS = [("none", "float32"), ("none", "bfloat16"), ("int8", "bfloat16"), ("nf4", "bfloat16"), ("nf4", "float32")]


def tiny(quantization="none", dtype="float32", path="builtin:tiny") -> ModelConfig:
    return ModelConfig(name="tiny", path=path, dtype=dtype, quantization=quantization)


def same(one, other) -> bool:
    return (
        one.facts == other.facts
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    )


@pytest.mark.parametrize(("quantization", "dtype"), FORMS)
def test_files_hold_what_transformers_loads(quantization, dtype, tmp_path):
    model = tiny(quantization, dtype)
    folder = prepare_layers(model, CPU, tmp_path)
    assert folder.complete
    backbone, files, _ = filled(model, CPU, folder)
    loaded = load_backbone(model, CPU)
    assert same(taken_apart(backbone, buffers=True), taken_apart(loaded, buffers=True))
    assert [file.path for file in files] == [folder.layer(number) for number in range(1, LAYERS + 1)]
    assert backbone.generation_config is not None
    assert [type(part) for part in backbone.modules()] == [type(part) for part in loaded.modules()]


@pytest.mark.parametrize("source", [None, ring_in_memory, staged_in_memory], ids=["mapped", "pinned", "staged"])
@pytest.mark.parametrize(("quantization", "dtype"), FORMS)
def test_taps_are_those_of_the_loaded_model(quantization, dtype, source, tmp_path, monkeypatch):
    if source is not None:
        monkeypatch.setitem(SOURCES, ("cpu", Residency.DISK), source)
    model = tiny(quantization, dtype)
    trunk = open_streamed(model, CPU, Residency.DISK, 2, tmp_path)
    loaded = load_backbone(model, CPU)
    keep_differentiable(loaded)
    ids = torch.randint(5, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = loaded(ids, output_hidden_states=True)
    for _ in range(2):
        taps = trunk.taps(TapRequest(frozenset(range(1, LAYERS + 1))), Batch(ids))
        for number in range(LAYERS):
            assert torch.equal(taps.rungs[number], expected.hidden_states[number]), number
        assert torch.equal(trunk.whole()(ids).logits, expected.logits)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *LATER])
def test_architectures_stream_or_are_refused_by_name(architecture, tmp_path):
    backbone = random_backbone(architecture)
    backbone.save_pretrained(tmp_path / "model")
    attention = "sdpa" if has_sdpa(backbone.config) else "eager"
    model = ModelConfig(name=architecture, path=str(tmp_path / "model"), dtype="float32", attention=attention)
    if architecture in EXPERTS and architecture != "gpt_oss":
        with pytest.raises(
            UserError, match=f"{backbone.config.model_type}.*stored in another form.*residency=resident"
        ):
            open_streamed(model, CPU, Residency.DISK, 2, tmp_path)
        return
    trunk = open_streamed(model, CPU, Residency.DISK, 2, tmp_path)
    ids = torch.randint(2, 97, (2, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(trunk.whole()(ids).logits, load_backbone(model, CPU)(ids).logits)


def test_shards_and_names_with_a_wrapper_are_read(tmp_path):
    loaded = load_backbone(tiny(), CPU)
    loaded.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    backbone, _, _ = filled(model := tiny(path=str(tmp_path / "sharded")), CPU, prepare_layers(model, CPU, tmp_path))
    assert same(taken_apart(backbone), taken_apart(loaded))


def test_the_files_are_known_by_the_weights_and_their_form(tmp_path):
    shutil.copytree(tiny().location, tmp_path / "moved")
    here, moved = (layer_folder(tiny(path=path), CPU, tmp_path) for path in ("builtin:tiny", str(tmp_path / "moved")))
    assert here == moved
    forms = [layer_folder(tiny(*form), CPU, tmp_path).path for form in FORMS]
    assert len(set(forms)) == len(FORMS)
    changed = load_backbone(tiny(), CPU)
    next(changed.parameters()).data[0] += 1
    changed.save_pretrained(tmp_path / "changed")
    assert layer_folder(tiny(path=str(tmp_path / "changed")), CPU, tmp_path).path != here.path


def test_made_once_and_then_found(tmp_path, monkeypatch):
    folder = prepare_layers(tiny(), CPU, tmp_path)
    layers = [path for path in folder.path.iterdir() if path.suffix == ".bin"]
    before = {path: path.stat().st_mtime_ns for path in layers}
    manifest = (folder.path / "manifest.json").read_bytes()

    def never(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(module, "_make", never)
    assert prepare_layers(tiny(), CPU, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in layers} == before
    # Its time says when the layers were used last, for who prunes.
    assert (folder.path / "manifest.json").read_bytes() == manifest


def _prepare(place: str, seconds: float) -> None:
    write = module.write_contents

    def slowly(path, contents):
        time.sleep(seconds)
        write(path, contents)

    module.write_contents = slowly
    prepare_layers(tiny(), CPU, Path(place))


def _started(place: Path, seconds: float) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(str(place), seconds))
    process.start()
    return process


@pytest.mark.slow
def test_killed_while_making_them_it_goes_on_where_it_was(tmp_path):
    folder = layer_folder(tiny(), CPU, tmp_path)
    process = _started(tmp_path, 0.2)
    while not folder.layer(2).is_file():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not folder.complete
    kept = {path: path.stat().st_mtime_ns for path in folder.path.glob("*.bin")}
    (folder.path / "layer-005.bin.0123abcd.tmp").write_bytes(b"half of it")  # as a kill may leave it
    assert prepare_layers(tiny(), CPU, tmp_path).complete
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert not list(folder.path.glob("*.tmp"))
    whole = prepare_layers(tiny(), CPU, tmp_path / "whole")
    for file in whole.path.glob("*.bin"):
        assert (folder.path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_of_two_that_begin_together_one_makes_them(tmp_path):
    processes = [_started(tmp_path, 0.05) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert prepare_layers(tiny(), CPU, tmp_path).complete
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_file_is_refused_before_training_and_made_anew_once_it_is_gone(tmp_path):
    folder = prepare_layers(tiny(), CPU, tmp_path)
    content = bytearray(folder.layer(4).read_bytes())
    content[-1000] ^= 1
    folder.layer(4).write_bytes(content)
    trunk = open_streamed(tiny(), CPU, Residency.DISK, 2, tmp_path)
    request, batch = TapRequest(frozenset({2}), final=False), Batch(torch.tensor([[5, 6]]))
    assert 2 in trunk.taps(request, batch).rungs  # does not read it
    with pytest.raises(UserError, match=r"layer-004\.bin is not as it was written: delete it"):
        trunk.whole()(batch.input_ids)
    with pytest.raises(UserError, match=r"layer-004\.bin"):
        trunk.hold([4])
    folder.layer(4).unlink()
    again = open_streamed(tiny(), CPU, Residency.DISK, 2, tmp_path)
    assert torch.equal(again.whole()(batch.input_ids).logits, load_backbone(tiny(), CPU)(batch.input_ids).logits)


def test_a_damaged_rest_is_refused_too(tmp_path):
    folder = prepare_layers(tiny(), CPU, tmp_path)
    content = bytearray(folder.rest.read_bytes())
    content[-1000] ^= 1
    folder.rest.write_bytes(content)
    with pytest.raises(UserError, match=r"rest\.bin is not as it was written"):
        open_streamed(tiny(), CPU, Residency.DISK, 2, tmp_path)


def test_without_room_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match=r"take 0\.0 GB in .* make room, or give another folder as trunk\.layer_files"):
        prepare_layers(tiny(), CPU, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_weights_of_another_shape_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny().location, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.3.mlp.up_proj.weight"
    save_file(weights | {name: weights[name][:-1].contiguous()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"layer 4 is of another shape \(mlp\.up_proj\.weight\)"):
        prepare_layers(tiny(path=str(folder)), CPU, tmp_path)
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"layer 4 is stored in another form \(mlp\.up_proj\.weight\)"):
        prepare_layers(tiny(path=str(folder)), CPU, tmp_path)


def test_only_the_window_is_in_memory(tmp_path):
    from tests.trunk.test_layer_files import mapped_bytes

    folder = prepare_layers(tiny(), CPU, tmp_path)
    trunk = open_streamed(tiny(), CPU, Residency.DISK, 2, tmp_path)
    size = trunk._files[0].nbytes
    seen: list[int] = []
    for layer in anatomy_of(trunk.whole()).layers:
        layer.register_forward_hook(lambda *_: seen.append(sum(mapped_bytes(folder.layer(n)) for n in range(1, 7))))
    for _ in range(2):
        trunk.taps(TapRequest(frozenset({6})), Batch(torch.tensor([[5, 6]])))
    assert len(seen) == 2 * LAYERS
    assert max(seen) <= 2 * size + 7 * 4096 * 2


def test_pages_of_embeddings_go_once_rows_were_looked_up(tmp_path):
    from tests.trunk.test_layer_files import mapped_bytes

    model = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", head_quantization="nf4")
    trunk = open_streamed(model, CPU, Residency.DISK, 2, tmp_path)
    rest = layer_folder(model, CPU, tmp_path).rest
    size = trunk.parts.embeddings.weight.nbytes
    ids = torch.arange(5, 400)[None]
    expected = load_backbone(model, CPU).get_input_embeddings()(ids)
    for _ in range(2):
        assert torch.equal(trunk.taps(TapRequest(frozenset({1})), Batch(ids)).rungs[0], expected)
    # Of the second pass: in the first what lies beside them is read too, and the system maps pages around it.
    assert mapped_bytes(rest) < size / 4
    trunk.parts.embeddings.weight.sum()
    assert mapped_bytes(rest) > size / 2  # as it would be otherwise
