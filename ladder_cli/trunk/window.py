"""The layers that are there at a time: one computes, the next ones are on their way.

`Window` decides which layers come and go. How one comes is a lane's business: on a CPU its pages are read where the
file is mapped, on a GPU it is copied into one of a ring of buffers.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ladder_cli.trunk.layer_files import Contents, LayerFile
from ladder_cli.trunk.stored_modules import parameters_of, set_parameters


class Lane(Protocol):
    """Brings layers, numbered from 0."""

    def fetch(self, number: int) -> Any:
        """Bring a layer; runs in the reading thread."""
        ...

    def use(self, number: int, fetched: Any) -> None:
        """Let the layer compute with what `fetch` brought; runs in the computing thread."""
        ...

    def release(self, number: int, fetched: Any) -> None:
        """Its place is free for others once what was begun with it is done; runs in the computing thread."""
        ...

    def stay(self, number: int) -> None:
        """Bring a layer for good, beside those that come and go; runs in the reading thread."""
        ...


class Window:
    """Which layers are there.

    Attributes:
        end: the last layer that the pass under way will run, counted from 1.
    """

    def __init__(self, lane: Lane, layers: int, size: int) -> None:
        """`layers`: how many there are; `size`: at most so many at a time, two or more."""
        self._lane, self._size = lane, size
        self._streamed = list(range(1, layers + 1))
        self.end = layers
        # One thread: layers come in the order in which they are asked for.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="layers")
        self._coming: dict[int, Future[Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Window":
        """Itself: files and threads are shared with a copied model."""
        return self

    @property
    def streamed(self) -> frozenset[int]:
        """The layers that come and go, counted from 1."""
        return frozenset(self._streamed)

    @property
    def there(self) -> frozenset[int]:
        """The layers that are there or on their way."""
        return frozenset(self._coming)

    def hold(self, numbers: Iterable[int]) -> None:
        """Bring layers to stay.

        Raises:
            DamagedLayer: if one is not as it was written.
        """
        for number in numbers:
            if number in self._streamed:
                if number in self._coming:
                    self._drop(number)
                self._streamed.remove(number)
                self._reader.submit(self._lane.stay, number - 1).result()

    def arrive(self, number: int) -> None:
        """Wait until a layer is there, and send for those after it.

        Raises:
            DamagedLayer: if it is not as it was written.
        """
        if number not in self._streamed:
            return
        wanted = [number, *self._after(number)]
        for other in [other for other in self._coming if other not in wanted]:
            self._drop(other)
        self._ask(number)
        fetched = self._coming[number].result()
        self._lane.use(number - 1, fetched)
        for other in wanted[1:]:
            self._ask(other)

    def leave(self, number: int) -> None:
        """A layer has run."""
        if number in self._coming:
            self._drop(number)

    def rest(self) -> None:
        """Let go of everything that is there."""
        for number in list(self._coming):
            self._drop(number)

    def _after(self, number: int) -> list[int]:
        """The layers that will run next; the first ones again after the last."""
        order = [other for other in self._streamed if other <= self.end] or [number]
        later = [other for other in order if other > number]
        return [other for other in (*later, *order) if other != number][: self._size - 1]

    def _ask(self, number: int) -> None:
        if number not in self._coming:
            self._coming[number] = self._reader.submit(self._lane.fetch, number - 1)

    def _drop(self, number: int) -> None:
        coming = self._coming.pop(number)
        if not coming.cancel() and coming.exception() is None:
            self._lane.release(number - 1, coming.result())


class MappedLane:
    """On a CPU: layers compute where their files are mapped; pages come ahead and go behind."""

    def __init__(self, files: Sequence[LayerFile]) -> None:
        self._files = files

    def fetch(self, number: int) -> None:
        """Read and map the pages."""
        self._files[number].fetch()

    def use(self, number: int, fetched: None) -> None:
        """Nothing to do: the weights are where they always are."""

    def release(self, number: int, fetched: None) -> None:
        """Unmap the pages."""
        self._files[number].release()

    def stay(self, number: int) -> None:
        """Read and map the pages, which nobody gives back."""
        self._files[number].fetch()


class Copier(Protocol):
    """Copies between memories, beside the computation and in order."""

    def buffer(self, size: int) -> Tensor:
        """Memory where layers compute, `[size]` uint8."""
        ...

    def staging(self, size: int) -> Tensor:
        """Memory that copies set out from, `[size]` uint8."""
        ...

    def mark(self) -> Any:
        """The computation as far as it has been begun."""
        ...

    def copy(self, source: Tensor, target: Tensor, after: Any) -> Any:
        """Begin a copy that waits for a mark of the computation; a mark of the copy."""
        ...

    def wait(self, copied: Any) -> None:
        """Let what is begun from now on wait for a copy; the caller does not wait."""
        ...

    def finish(self, copied: Any) -> None:
        """Wait for a copy."""
        ...


class CudaCopier:
    """Copies on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def buffer(self, size: int) -> Tensor:
        """On the card."""
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def staging(self, size: int) -> Tensor:
        """Page-locked memory of the host."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def mark(self) -> Any:
        """An event of the computing stream."""
        return torch.cuda.current_stream(self._device).record_event()

    def copy(self, source: Tensor, target: Tensor, after: Any) -> Any:
        """Nobody waits here but the copying stream."""
        with torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, copied: Any) -> None:
        """The computing stream waits."""
        torch.cuda.current_stream(self._device).wait_event(copied)

    def finish(self, copied: Any) -> None:
        """The calling thread waits."""
        copied.synchronize()


class _Slot:
    """One buffer of the ring, and the parameters that lie in it: all layers have the same layout."""

    def __init__(self, buffer: Tensor, parameters: Mapping[str, nn.Parameter]) -> None:
        self.buffer, self.parameters = buffer, parameters
        self._places = {name: parameter.data for name, parameter in parameters.items()}
        self.free: Any = None  # a mark after the last computation with it
        self.copied: Any = None

    def set_back(self) -> None:
        """Point the parameters at the buffer again: bitsandbytes puts a converted bias in the place of its own."""
        for name, place in self._places.items():
            if self.parameters[name].data_ptr() != place.data_ptr():
                self.parameters[name].data = place


class RingLane:
    """On a GPU: a ring of buffers that layers are copied into beside the computation, and point their weights at.

    While a layer is away, its weights are those of its mapped file.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        files: Sequence[LayerFile],
        size: int,
        copier: Copier,
        pinned: Sequence[Tensor] = (),
    ) -> None:
        """Lay the ring out.

        Args:
            layers: over their files, all of one layout.
            size: buffers.
            copier: between the memories.
            pinned: all layers' bodies in memory that copies set out from; empty: each is read from its file into one
                of two staging buffers first.
        """
        self._files, self._copier = files, copier
        self._modules = [dict(layer.named_modules()) for layer in layers]
        self._at_rest = [parameters_of(layer, file.contents) for layer, file in zip(layers, files, strict=True)]
        self._make = partial(_views, layers[0], files[0])
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        self._to_make = size  # not before they are needed: a second trunk over the files may never run a layer
        self._pinned = pinned
        self._staging: list[Tensor] = []
        self._sent: list[Any] = [None, None]
        self._next = 0

    def _slot(self, size: int) -> _Slot:
        buffer = self._copier.buffer(size)
        return _Slot(buffer, self._make(buffer))

    def fetch(self, number: int) -> _Slot:
        """Begin the copy into a free buffer."""
        source = self._pinned[number] if self._pinned else self._staged(number)
        if self._to_make:
            self._to_make -= 1
            self._free.put(self._slot(self._files[number].nbytes))
        slot = self._free.get()
        slot.copied = self._copier.copy(source, slot.buffer, slot.free)
        if not self._pinned:
            self._sent[self._next] = slot.copied
            self._next = 1 - self._next
        return slot

    def _staged(self, number: int) -> Tensor:
        if self._sent[self._next] is not None:
            self._copier.finish(self._sent[self._next])
        file = self._files[number]
        if not self._staging:
            self._staging = [self._copier.staging(file.nbytes) for _ in self._sent]
        file.fetch()
        staging = self._staging[self._next].copy_(file.body)
        file.release()
        return staging

    def use(self, number: int, fetched: _Slot) -> None:
        """Point the layer's weights at the buffer."""
        self._copier.wait(fetched.copied)
        fetched.set_back()
        set_parameters(self._modules[number], fetched.parameters)

    def release(self, number: int, fetched: _Slot) -> None:
        """Point them back at the file."""
        set_parameters(self._modules[number], self._at_rest[number])
        fetched.free = self._copier.mark()
        self._free.put(fetched)

    def stay(self, number: int) -> None:
        """Copy the layer into a buffer of its own."""
        file = self._files[number]
        file.fetch()
        slot = self._slot(file.nbytes)
        slot.buffer.copy_(file.body)
        file.release()
        set_parameters(self._modules[number], slot.parameters)


def pinned_copies(files: Sequence[LayerFile], copier: Copier) -> list[Tensor]:
    """All layers' bodies in memory that copies set out from.

    Raises:
        DamagedLayer: if a file is not as it was written.
    """
    copies = []
    for file in files:
        file.fetch()
        copies.append(copier.staging(file.nbytes).copy_(file.body))
        file.release()
    return copies


def _views(layer: nn.Module, file: LayerFile, body: Tensor) -> dict[str, nn.Parameter]:
    return parameters_of(layer, Contents(file.views(body), file.contents.facts))
