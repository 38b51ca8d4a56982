"""First weights of a side network by `method.init`, and which shapes start as their backbone."""

from collections.abc import Callable, Iterable

from transformers import PreTrainedModel

from ladder_cli.config.choices import Init
from ladder_cli.nn.cloning import initialise_cloned
from ladder_cli.nn.importance import by_fisher, by_magnitude
from ladder_cli.nn.pruning import initialise_pruned
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.parts import Anatomy

Sample = Iterable[Batch]  # of training data, one row a batch


def _as_made(side: SideNetwork, backbone: PreTrainedModel, anatomy: Anatomy, sample: Sample) -> None:
    """The side network made its uniform weights itself."""


def _cloned(side: SideNetwork, backbone: PreTrainedModel, anatomy: Anatomy, sample: Sample) -> None:
    initialise_cloned(side, anatomy)


def _pruned_by_magnitude(
    side: SideNetwork, backbone: PreTrainedModel, anatomy: Anatomy, sample: Iterable[Batch]
) -> None:
    initialise_pruned(side, anatomy, by_magnitude(anatomy))


def _pruned_by_fisher(side: SideNetwork, backbone: PreTrainedModel, anatomy: Anatomy, sample: Sample) -> None:
    initialise_pruned(side, anatomy, by_fisher(backbone, anatomy, sample))


FIRST_WEIGHTS: dict[Init, Callable[[SideNetwork, PreTrainedModel, Anatomy, Sample], None]] = {
    Init.UNIFORM: _as_made,
    Init.CLONED: _cloned,
    Init.PRUNED_MAGNITUDE: _pruned_by_magnitude,
    Init.PRUNED_FISHER: _pruned_by_fisher,
}
