"""Reward functions for tests, named in a config as `tests.train.rewarding:NAME`; good ones and broken ones."""

import zlib

import numpy as np
import torch

constant = 3


def mixed(completions, **columns):
    """Another reward for every other text."""
    assert set(columns) == {"prompts", "golds"}
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


def ones(completions, **columns):
    """How much of a completion are ones."""
    return [text.count("1") / max(1, len(text)) for text in completions]


def long(prompts, completions, golds):
    """The longer the better, in other types of numbers than Python's."""
    assert len(prompts) == len(completions) == len(golds)
    assert all(prompt.startswith("Compute") for prompt in prompts)
    assert all(gold.isdigit() for gold in golds)
    kinds = (np.float32, torch.tensor, float, int)
    return [kinds[number % 4](len(text)) for number, text in enumerate(completions)]


def raises(completions, **columns):
    raise KeyError("no such thing")


def too_few(completions, **columns):
    return [0.0] * (len(completions) - 1)


def nothing(completions, **columns):
    return None


def not_finite(completions, **columns):
    return [float("nan")] * len(completions)


def no_number(completions, **columns):
    return ["1.0"] * len(completions)


def other_arguments(texts):
    return [0.0] * len(texts)
