"""How much of what is copied to a GPU is copied while it computes, out of a profile of one step."""

from collections.abc import Callable, Iterable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Interval = tuple[float, float]  # begin and end, in any unit
_COPY_TO_DEVICE = "Memcpy HtoD"


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time in intervals that do not overlap, in order."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def share_within(inner: Iterable[Interval], outer: Iterable[Interval]) -> float | None:
    """Of the time of `inner` the share that lies within `outer`; None where there is no such time."""
    ours, theirs = merged(inner), merged(outer)
    total = sum(end - begin for begin, end in ours)
    if not total:
        return None
    both, place = 0.0, 0
    for begin, end in ours:
        while place < len(theirs) and theirs[place][1] <= begin:
            place += 1
        for other_begin, other_end in theirs[place:]:
            if other_begin >= end:
                break
            both += min(end, other_end) - max(begin, other_begin)
    return both / total


def transfer_overlap(step: Callable[[], object], device: torch.device) -> float | None:
    """Of the time in which a step's copies to the device run, the share in which kernels run too.

    Args:
        step: run once before, so that nothing is built in it any more.
        device: None comes back for one that nothing is copied to.
    """
    if device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        step()
        torch.cuda.synchronize(device)
    copies: list[Interval] = []
    kernels: list[Interval] = []
    for event in profiled.events():
        if event.device_type is DeviceType.CUDA:
            times = (event.time_range.start, event.time_range.end)
            if event.name.startswith(_COPY_TO_DEVICE):
                copies.append(times)
            elif not event.name.startswith(("Memcpy", "Memset")):
                kernels.append(times)
    return share_within(copies, kernels)
