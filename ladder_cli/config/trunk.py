"""How the frozen backbone is read: where its layers lie, and where its taps are kept (the key `trunk`)."""

from dataclasses import dataclass

from ladder_cli.config.choices import CacheFormat, CacheMode, Passes, Residency
from ladder_cli.config.options import expanded, incidental, option, settle


@dataclass
class StreamingConfig:
    """Where the frozen backbone's layers are while they do not compute (the key `trunk`)."""

    residency: Residency = incidental(
        Residency.RESIDENT,
        "where the layers are while they do not compute; auto: streamed where a step fits only so",
    )
    window: int = incidental(2, "of a streamed backbone that are there at a time", unit="layers", at_least=2)
    layer_files: str | None = incidental(
        None, "folder above the files that layers are streamed from; null: in the user's cache"
    )

    def __post_init__(self) -> None:
        self.layer_files = expanded(self.layer_files)
        settle(self, "trunk.")


@dataclass
class TrunkConfig(StreamingConfig):
    """How the frozen backbone is read (the key `trunk`). Nothing of it concerns QLoRA, which does not only read it."""

    # Results differ in their last bits, as between machines.
    passes: Passes = incidental(
        Passes.AUTO, "rows go through the backbone each by itself, or a micro-batch together; auto: by itself on a CPU"
    )
    cache: CacheMode = incidental(CacheMode.OFF, "where taps are kept, so that no row passes the backbone twice")
    cache_format: CacheFormat = option(CacheFormat.EXACT, "how taps are kept; int8 rounds them")
    cache_dir: str | None = incidental(None, "folder of the cache on disk; null: outputs/.cache/taps")
    cache_limit_gb: float | None = incidental(
        None, "the cache grows no larger; null: nine tenths of what is free, half of it in memory", unit="10^9 bytes",
        at_least=0.0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.cache_dir = expanded(self.cache_dir)
        super().__post_init__()
