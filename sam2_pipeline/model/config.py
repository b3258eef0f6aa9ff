"""The model configurations: what differs between the eight official models and our own small one, and nothing else.

Weights fix these numbers, so they are Python constants and not settings.
"""

from dataclasses import dataclass, replace

from sam2_pipeline.errors import ConfigError


@dataclass(frozen=True)
class TrunkConfig:
    """Dimensions of the Hiera image trunk (Ryali et al., 2023; SAM 2 paper, appendix C).

    ``windows`` are the nominal attention windows of the four stages; ``global_blocks`` attend to the whole map.
    """

    embed_dim: int
    num_heads: int
    stage_depths: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    position_grid: int = 7

    @property
    def stage_dims(self) -> tuple[int, ...]:
        return tuple(self.embed_dim * 2**stage for stage in range(4))


@dataclass(frozen=True)
class ModelConfig:
    """One SAM 2 model.

    Attributes:
        name: such as ``sam2.1_hiera_tiny``.
        version: ``"2.0"`` or ``"2.1"``; 2.1 marks occluded memories and gives object pointers a signed time encoding.
        trunk: the image trunk.
        image_size: side S of the square network input, a multiple of 32 from 128 on.
        hidden_dim, memory_dim: channels of image features (D) and of stored memories (C).
        feedforward_dim: width of the feed-forward layers in memory attention and mask decoder.
        memory_layers: layers of memory attention.
        offline_size: the same where nobody waits for a frame, that is in jobs; None: ``image_size``.
        good_iou, good_stability: predicted IoU and stability score from which on an automatic mask of the model is worth
            keeping; by default those that the reference takes for the official ones.
    """

    name: str
    version: str
    trunk: TrunkConfig
    image_size: int = 1024
    offline_size: int | None = None
    hidden_dim: int = 256
    memory_dim: int = 64
    feedforward_dim: int = 2048
    memory_layers: int = 4
    good_iou: float = 0.8
    good_stability: float = 0.95

    def __post_init__(self) -> None:
        if self.image_size % 32 or self.image_size < 128:
            raise ConfigError(f"image_size is {self.image_size}, expected a multiple of 32 from 128 on")

    @property
    def feature_side(self) -> int:
        """Side of the stride-16 feature map."""
        return self.image_size // 16


_TRUNKS = {
    "tiny": TrunkConfig(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": TrunkConfig(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": TrunkConfig(112, 2, (2, 3, 16, 3), (12, 16, 20), position_grid=14),
    "large": TrunkConfig(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
}

# Our own, whose weights travel with the package: small enough for that, and to follow an object on two CPU cores as it is filmed.
EMBEDDED = ModelConfig(
    "sam2_pipeline_small",
    "2.1",
    TrunkConfig(48, 1, (2, 2, 5, 1), (5, 7), windows=(8, 8, 8, 8)),
    image_size=288,
    offline_size=384,
    hidden_dim=128,
    feedforward_dim=512,
    memory_layers=2,
    good_iou=0.58,
    good_stability=0.82,
)

_OFFICIAL = [
    ModelConfig(f"{family}_hiera_{size}", version, trunk)
    for family, version in (("sam2", "2.0"), ("sam2.1", "2.1"))
    for size, trunk in _TRUNKS.items()
]

MODELS: dict[str, ModelConfig] = {config.name: config for config in (*_OFFICIAL, EMBEDDED)}

MODEL_NAMES: tuple[str, ...] = tuple(MODELS)


def find_config(name: str | None, image_size: int | None = None, *, offline: bool = False) -> ModelConfig:
    """The configuration called ``name``, or the embedded one for None. Without an ``image_size`` it has its own, or that for
    ``offline`` work.

    Hugging Face ids (``facebook/sam2.1-hiera-tiny``) and ``-`` for ``_`` are understood.

    Raises:
        ConfigError: no such model, or an impossible ``image_size``.
    """
    config = EMBEDDED if name is None else MODELS.get(name.removeprefix("facebook/").replace("-", "_"))
    if config is None:
        raise ConfigError(f"unknown model {name!r}; known models: {', '.join(MODEL_NAMES)}")
    if image_size is None and offline:
        image_size = config.offline_size
    return config if image_size is None else replace(config, image_size=image_size)
