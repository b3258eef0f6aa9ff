"""Videos with true masks: synthetic scenes from their seeds, or files beside annotations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.masks import Masks, MaskSource
from sam2_pipeline.formats.sources import open_masks
from sam2_pipeline.formats.videos import videos_below
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.rle import Rle, encode_batch
from sam2_pipeline.protocols.shots import ShotChange
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.settings import convert_fields, parse_override
from sam2_pipeline.training.synthetic import Scene, SceneOptions, make_scene

SYNTHETIC = "synthetic"


class TrueClips(Protocol):
    """Videos and their true masks, one at a time. Picklable."""

    @property
    def url(self) -> str: ...

    @property
    def video_ids(self) -> tuple[str, ...]: ...

    def read(self, video_id: str) -> Masks:
        """The true masks.

        Raises:
            VideoError: they cannot be read.
        """
        ...

    def scenery(self, video_id: str) -> Masks:
        """Regions that are no object and that one may segment all the same, on the frames that have true masks; none where
        nobody knows of any."""
        ...

    def changes(self, video_id: str) -> tuple[ShotChange, ...] | None:
        """Where shots change; None where nobody knows."""
        ...

    def open(self, video_id: str) -> AbstractContextManager[FrameSource]:
        """The frames.

        Raises:
            VideoError: the video cannot be read.
        """
        ...


@dataclass(frozen=True)
class SyntheticClips:
    """Scenes of the seeds 0, 1, ...; training takes seeds from a million on. Every frame has masks, parts too have their own."""

    count: int
    options: SceneOptions
    url: str = SYNTHETIC

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(f"synthetic_{seed:06d}" for seed in range(self.count))

    def read(self, video_id: str) -> Masks:
        scene = self._scene(video_id)
        return _by_number(encode_batch(scene.masks(t)) for t in range(scene.num_frames))

    def scenery(self, video_id: str) -> Masks:
        scene = self._scene(video_id)
        return _by_number(encode_batch(scene.scenery(t)) for t in range(scene.num_frames))

    def changes(self, video_id: str) -> tuple[ShotChange, ...]:
        return ()

    @contextmanager
    def open(self, video_id: str) -> Iterator[FrameSource]:
        scene = self._scene(video_id)
        # Drawn once, and not for every protocol.
        yield ArrayFrames([scene.frame(t) for t in range(scene.num_frames)], scene.options.fps)

    def _scene(self, video_id: str) -> Scene:
        return make_scene(int(video_id.rpartition("_")[2]), self.options)


@dataclass(frozen=True)
class AnnotatedClips:
    """Videos in files, with masks as `evaluation` reads them. ``places`` says where each video is."""

    truth: MaskSource
    places: Mapping[str, str]
    storage_options: Mapping[str, Any]

    @property
    def url(self) -> str:
        return self.truth.url

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self.places))

    def read(self, video_id: str) -> Masks:
        return self.truth.read(video_id)

    def scenery(self, video_id: str) -> Masks:
        return {}

    def changes(self, video_id: str) -> None:
        """Annotations do not say it."""

    @contextmanager
    def open(self, video_id: str) -> Iterator[FrameSource]:
        with open_video(self.places[video_id], storage_options=self.storage_options) as video:
            yield video


def scene_options(overrides: list[str]) -> SceneOptions:
    """The default scenes with ``name=value`` changed, see `SceneOptions`."""
    given = {}
    for text in overrides:
        keys, value = parse_override(text)
        given[".".join(keys)] = value
    return SceneOptions(**convert_fields(SceneOptions, given, "--scene"))


def open_clips(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    sav: str | None = None,
    videos: str | None = None,
    most: int | None = None,
) -> AnnotatedClips:
    """Annotated videos at a path or fsspec URL, the first ``most`` by name.

    The videos are looked for where each layout has them: SA-V's beside the JSON files; DAVIS's, MOSE's and SA-V's pictures in
    ``JPEGImages`` beside ``Annotations``; those of a run where it read them; or below ``videos``, as VIDEO.mp4 or VIDEO/.

    Raises:
        ConfigError: there is no ground truth, or nothing says where its videos are.
    """
    truth = open_masks(url, dict(options or {}), sav=sav)
    ids = truth.video_ids[:most]
    if not ids:
        raise ConfigError(f"{truth.url} holds no video")
    if videos is not None:
        where = videos_below(videos, dict(options or {}))
        places = {video_id: where(video_id) for video_id in ids}
    else:
        places = {video_id: _place(truth, video_id) for video_id in ids}
    return AnnotatedClips(truth, places, dict(options or {}))


def _by_number(frames: Iterable[Sequence[Rle]]) -> Masks:
    """The masks of all frames, in the same order on each."""
    return {number: dict(enumerate(masks)) for number, masks in enumerate(zip(*frames, strict=True))}


def _place(truth: MaskSource, video_id: str) -> str:
    url = truth.video_url(video_id)
    if url is None:
        raise ConfigError(
            f"{truth.url}: where are its videos? Expected them in JPEGImages beside Annotations; otherwise say it with --videos"
        )
    return url
