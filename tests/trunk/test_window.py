"""Which layers are there, and that no buffer is written while a layer computes with it."""

import threading

import pytest
import torch
from torch import nn

from ladder_cli.trunk.layer_files import DamagedLayer, LayerFile, write_contents
from ladder_cli.trunk.stored_modules import put_together, taken_apart
from ladder_cli.trunk.window import RingLane, Window, pinned_copies
from tests.trunk.copier import GARBAGE, LateCopier

LAYERS = 5


class Noted:
    """A lane that notes what it is asked."""

    def __init__(self):
        self.there: set[int] = set()
        self.most = 0
        self.log: list[tuple[str, int]] = []
        self.lock = threading.Lock()

    def note(self, what, number):
        with self.lock:
            self.log.append((what, number + 1))
            if what == "fetch":
                self.there.add(number + 1)
            if what == "release":
                self.there.remove(number + 1)
            self.most = max(self.most, len(self.there))

    def fetch(self, number):
        self.note("fetch", number)
        return number

    def use(self, number, fetched):
        assert fetched == number
        assert number + 1 in self.there
        self.note("use", number)

    def release(self, number, fetched):
        assert fetched == number
        self.note("release", number)

    def stay(self, number):
        self.note("stay", number)

    def fetched(self):
        return [number for what, number in self.log if what == "fetch"]


def run(window: Window, last: int = LAYERS, first: int = 1) -> None:
    """A pass."""
    window.end = last
    for number in range(first, last + 1):
        window.arrive(number)
        assert number in window.there or number not in window.streamed
        settled(window)
        window.leave(number)


def settled(window: Window) -> None:
    window._reader.submit(int).result()  # what was asked for before has come


@pytest.mark.parametrize("size", [2, 3, 4])
def test_no_more_layers_than_the_window_are_there_and_each_comes_once_a_pass(size):
    lane = Noted()
    window = Window(lane, LAYERS, size)
    for _ in range(3):
        run(window)
    settled(window)
    assert lane.most == size
    # In their order, the first ones of the next pass sent for by the end of this one.
    assert lane.fetched() == [*range(1, LAYERS + 1)] * 3 + [*range(1, size)]


def test_the_next_layer_is_sent_for_before_this_one_has_run():
    lane = Noted()
    window = Window(lane, LAYERS, 2)
    window.arrive(1)
    settled(window)
    assert lane.there == {1, 2}


def test_a_pass_that_ends_early_sends_for_the_first_layer_and_not_for_those_above():
    lane = Noted()
    window = Window(lane, LAYERS, 2)
    run(window, last=3)
    run(window, last=3)
    settled(window)
    assert lane.fetched() == [1, 2, 3, 1, 2, 3, 1]


def test_what_was_sent_for_in_vain_makes_room():
    lane = Noted()
    window = Window(lane, LAYERS, 3)
    run(window, last=4)
    run(window, first=4, last=5)  # nobody asked for this order
    settled(window)
    assert lane.most <= 3
    window.rest()
    assert lane.there == set()


def test_layers_that_are_held_come_once_and_stay():
    lane = Noted()
    window = Window(lane, LAYERS, 2)
    window.arrive(4)
    window.hold([4, 5])
    window.hold([5])
    assert window.streamed == {1, 2, 3}
    for _ in range(2):
        run(window)
    settled(window)
    assert [number for what, number in lane.log if what == "stay"] == [4, 5]
    # Layer 4, and those it sent for; then two passes, and the first of the next one.
    assert lane.fetched()[-7:] == [1, 2, 3, 1, 2, 3, 1]
    assert lane.there == {1}


def test_a_layer_that_cannot_come_says_so_where_it_is_needed():
    class Broken(Noted):
        def fetch(self, number):
            if number == 2:
                raise DamagedLayer("layer-003.bin is not as it was written")
            return super().fetch(number)

    window = Window(Broken(), LAYERS, 2)
    window.arrive(1)
    window.leave(1)
    window.arrive(2)  # sends for layer 3, which nobody needs yet
    window.leave(2)
    with pytest.raises(DamagedLayer, match="layer-003"):
        window.arrive(3)
    window.rest()


@pytest.fixture
def layers(tmp_path):
    """Modules over files, and what each of them computes of ones."""
    files, expected, built = [], [], []
    for number in range(LAYERS):
        torch.manual_seed(number)
        layer = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
        path = tmp_path / f"layer-{number + 1:03d}.bin"
        write_contents(path, taken_apart(layer))
        files.append(LayerFile(path))
        expected.append(layer(torch.ones(8)))
        with torch.device("meta"):
            built.append(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False))
        put_together(built[-1], files[-1].contents)
    return built, files, expected


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "staged"])
def test_through_a_ring_each_layer_computes_with_its_own_weights(layers, size, pinned):
    built, files, expected = layers
    copier = LateCopier(0.003)
    lane = RingLane(built, files, size, copier, pinned_copies(files, copier) if pinned else ())
    window = Window(lane, LAYERS, size)
    for _ in range(3):
        for number, layer in enumerate(built, start=1):
            window.arrive(number)
            at_work = layer[0].weight.data_ptr()
            assert at_work != files[number - 1].contents.tensors["0.weight"].data_ptr()
            assert torch.equal(layer(torch.ones(8)), expected[number - 1])
            window.leave(number)
            # While it is away its weights are those of its file.
            assert layer[0].weight.data_ptr() == files[number - 1].contents.tensors["0.weight"].data_ptr()
    assert copier.buffers == size
    # A buffer is copied into again only after the computation that waited for it before.
    for buffer in {place for _, place in copier.log}:
        steps = [what for what, place in copier.log if place == buffer]
        assert steps[:-1] == (["copy", "wait"] * len(steps))[: len(steps) - 1]


def test_a_held_layer_has_a_buffer_of_its_own(layers):
    built, files, expected = layers
    copier = LateCopier()
    window = Window(RingLane(built, files, 2, copier, pinned_copies(files, copier)), LAYERS, 2)
    window.hold([LAYERS])
    kept = built[-1][0].weight
    run(window, last=LAYERS)
    assert built[-1][0].weight is kept
    assert torch.equal(built[-1](torch.ones(8)), expected[-1])
    assert copier.buffers == 3
    assert GARBAGE not in kept


def test_quantised_layers_point_at_the_ring_with_all_that_belongs_to_them(tmp_path):
    from ladder_cli.trunk.compact import quantized_linear

    for kind in ("nf4", "int8"):
        make = quantized_linear(kind)
        layers, files, expected = [], [], []
        for number in range(3):
            torch.manual_seed(number)
            layer = nn.ModuleDict({"proj": make(torch.randn(64, 64, dtype=torch.bfloat16))})
            ones = torch.ones(1, 64, dtype=torch.bfloat16)
            path = tmp_path / f"{kind}-{number}.bin"
            write_contents(path, taken_apart(layer))
            files.append(LayerFile(path))
            expected.append(layer["proj"](ones))
            layer["proj"].weight = type(layer["proj"].weight)(torch.empty(0, device="meta"), requires_grad=False)
            put_together(layer, files[-1].contents)
            layers.append(layer)
        copier = LateCopier(0.002)
        window = Window(RingLane(layers, files, 2, copier, pinned_copies(files, copier)), 3, 2)
        for _ in range(2):
            for number, layer in enumerate(layers, start=1):
                window.arrive(number)
                assert torch.equal(layer["proj"](ones), expected[number - 1]), kind
                window.leave(number)
