"""What makes a run the run it is: weights, rows, rendered prompt, reward and settings, by content. Imports no torch.

Two runs are the same if and only if all of these agree. Where the weights or rows lie, and under what name, does not
enter: a moved folder is the same, and another file under the same name is not.
"""

from dataclasses import dataclass, field
from typing import Any, Self

from ladder_cli.config.methods import ADDED_TO_KIND
from ladder_cli.config.options import Role, covers, flat, options_of
from ladder_cli.config.schema import ADDED, TrainConfig

SEED = "seed"
# What the content of a run consists of, in the words of a message.
_PARTS = {
    "weights": "weights of the backbone",
    "rows": "rows of the data",
    "tokenizer": "tokenizer",
    "prompt": "rendered prompt",
    "reward": "code of the reward function",
}


@dataclass(frozen=True)
class RunIdentity:
    """The identity of a run.

    Attributes:
        settings: every option that can change the result, flat (`train.epochs`), with its value.
        weights: `trunk.weights_identity` of the backbone; None where they are not on this machine.
        rows: fingerprint of the training and validation rows, in order.
        rows_follow_seed: another seed draws other rows, so that runs of one experiment need not share them.
        tokenizer, prompt: fingerprints of the tokenizer, and of what it renders.
        reward: digest of the code that judges what is sampled; None where none of the user's does.
        places: where content lies, flat; compared only where the content itself is not known.
    """

    settings: dict[str, Any]
    weights: str | None = None
    rows: str | None = None
    rows_follow_seed: bool = False
    tokenizer: str | None = None
    prompt: str | None = None
    reward: str | None = None
    places: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_config(cls, config: dict[str, Any], content: Any = None) -> Self:
        """Of a config as plain containers, with the content as `content_as_dict` gives it.

        Raises:
            ValueError: if `content` is no such thing.
        """
        content = {} if content is None else content
        if not isinstance(content, dict) or any(not isinstance(content.get(part), str | None) for part in _PARTS):
            raise ValueError("its 'identity' is not as it was written")
        given = flat(config)
        values = {**ADDED, **ADDED_TO_KIND.get(str(given.get("method.kind")), {}), **given}
        places = options_of(TrainConfig, Role.PLACE)
        left_out = [*places, *options_of(TrainConfig, Role.INCIDENTAL)]
        return cls(
            settings={key: value for key, value in values.items() if not covers(left_out, key)},
            places={key: value for key, value in values.items() if covers(places, key)},
            rows_follow_seed=content.get("rows_follow_seed") is True,
            **{part: content.get(part) for part in _PARTS},
        )

    def content_as_dict(self) -> dict[str, Any]:
        """Everything but the settings, which stand in the run's config.yaml."""
        return {part: getattr(self, part) for part in _PARTS} | {"rows_follow_seed": self.rows_follow_seed}

    def differences(self, now: "RunIdentity") -> list[str]:
        """Every part that is another one now, as `part: before -> now`; parts that one side does not know are not
        compared here.
        """
        parts = [
            f"{words}: {getattr(self, part)} -> {getattr(now, part)}"
            for part, words in _PARTS.items()
            if None not in (getattr(self, part), getattr(now, part)) and getattr(self, part) != getattr(now, part)
        ]
        return parts + _differences(self.settings, now.settings)

    def moved(self, now: "RunIdentity") -> list[str]:
        """The places of model and data that are other ones now, as `option: before -> now`."""
        return _differences(self.places, now.places)

    def experiment(self) -> dict[str, Any]:
        """What the runs of one experiment share: all but the seed, and the rows where the seed draws them."""
        content = self.content_as_dict()
        if self.rows_follow_seed:
            del content["rows"]
        if self.weights is None or self.rows is None:
            # An old run directory, which recorded no content: where it lay is all there is to go by.
            content["places"] = self.places
        return content | {"settings": {key: value for key, value in self.settings.items() if key != SEED}}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
