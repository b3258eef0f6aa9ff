"""Videos with known masks as clips: synthetic scenes, SA-V folders, DAVIS-like folders, tables of our own."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.random import Generator, default_rng
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.palette import read_labels
from sam2_pipeline.formats.sav_content import read_annotation
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.rle import Rle, decode, thin_out
from sam2_pipeline.training.clips import Clip, ClipRequest, ClipSource, choose_frames, choose_objects
from sam2_pipeline.training.settings import DataSection
from sam2_pipeline.training.synthetic import SceneOptions, make_scene

_ASPECTS = (1.0, 1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16)  # width to height
_VARIED = 24  # frames of a scene from which several examples are taken
_DAVIS_FOLDERS = ("480p", "Full-Resolution", "")
_VOID = 255  # DAVIS: pixels that belong to no object for certain

_last_scene = lru_cache(maxsize=1)(make_scene)


def open_clips(data: DataSection) -> ClipSource:
    """The clips that the settings name.

    Raises:
        ConfigError: a folder that does not exist, or holds no annotated video.
    """
    if data.kind == "synthetic":
        return SyntheticClips(data)
    assert data.root is not None, "checked by the settings"
    if data.kind == "tables":
        return TableClips(data.root, data.size, data.only)
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise ConfigError(f"data.root {data.root} is not a folder")
    return SavClips(root, data.size) if data.kind == "sav" else DavisClips(root)


class SyntheticClips:
    """A scene per seed; pictures of several aspect ratios and about ``size * size`` pixels."""

    def __init__(self, data: DataSection) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.num_scenes

    def read(self, index: int, request: ClipRequest, rng: Generator) -> Clip | None:
        data, seed = self.data, self.data.first_seed + index
        stretch = default_rng(seed).choice(_ASPECTS) ** 0.5
        size = (round(data.size / stretch), round(data.size * stretch))
        length = 3 * request.frames * request.max_stride // 2 if request.frames > 1 else 1
        length = length if data.views == 1 else max(length, _VARIED)
        options = SceneOptions(size=size, frames=length, pictures=data.pictures, picture_share=data.picture_share)
        scene = _last_scene(seed, options)
        numbers = choose_frames(length, request, rng)
        first = scene.masks(int(numbers[0]))
        chosen = choose_objects(first.mean(axis=(1, 2)), request, rng)
        if not len(chosen):
            return None
        frames, masks = zip(*((scene.frame(t), scene.masks(t)[chosen]) for t in map(int, numbers)))
        ground = np.stack([scene.labels(t) == 0 for t in map(int, numbers)]) if request.ground else None
        return Clip(np.stack(frames), np.stack(masks), ground)


@dataclass(frozen=True, slots=True)
class Annotated:
    """The masks of a video: ``masks[i]`` are those of all its objects on frame number ``frames[i]``."""

    url: str
    frames: Sequence[int]
    masks: Sequence[Sequence[Rle]]


class AnnotatedVideos(ABC):
    """Videos whose masks are run-length codes; squeezed to ``size x size`` as they are decoded."""

    size: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def annotation(self, index: int) -> Annotated:
        """Where video ``index`` is, and its masks."""

    def read(self, index: int, request: ClipRequest, rng: Generator) -> Clip | None:
        video = self.annotation(index)
        places = choose_frames(len(video.frames), request, rng)
        first = video.masks[places[0]]
        chosen = choose_objects(np.array([rle.area / (rle.height * rle.width) for rle in first]), request, rng)
        if not len(chosen):
            return None
        masks = np.stack([[thin_out(decode(video.masks[place][n]), (self.size, self.size)) for n in chosen] for place in places])
        return Clip(self._pictures(video.url, [video.frames[place] for place in places]), masks)

    def _pictures(self, url: str, numbers: Sequence[int]) -> np.ndarray:
        wanted = set(numbers)
        with open_video(url) as video:
            span = video.frames(min(wanted), max(wanted) + 1, size=(self.size, self.size))
            frames = {frame.index: frame.image for frame in span if frame.index in wanted}
        if missing := sorted(wanted - frames.keys()):
            raise VideoError(f"{url} has no frame {missing[0]}, which is annotated")
        return np.stack([frames[number] for number in numbers])


class SavClips(AnnotatedVideos):
    """``*.mp4`` with ``*_manual.json`` or ``*_auto.json`` beside them, anywhere below a folder; both kinds count as videos."""

    def __init__(self, root: Path, size: int) -> None:
        self.size = size
        self.files = [
            (video, notes)
            for video in sorted(root.rglob("*.mp4"))
            for kind in ("manual", "auto")
            if (notes := video.with_name(f"{video.stem}_{kind}.json")).exists()
        ]
        if not self.files:
            raise ConfigError(f"{root} holds no annotated video, expected VIDEO.mp4 with VIDEO_manual.json or VIDEO_auto.json")

    def __len__(self) -> int:
        return len(self.files)

    def annotation(self, index: int) -> Annotated:
        path, notes = self.files[index]
        video = read_sav(notes)
        masks = [[masklet.frames[place].rle for masklet in video.masklets] for place in range(len(video.frames))]
        return Annotated(str(path), video.frames, masks)


class TableClips(AnnotatedVideos):
    """The output of `sam2-pipeline run`: what a model made teaches the next one. The videos must still be where they were.

    With ``only``, masklets of these verdicts: a person's if there is one, else the judge's.
    """

    def __init__(self, url: str, size: int, only: Sequence[str] = ()) -> None:
        self.size, self.tables = size, MaskletDataset(url)
        rows = self.tables.masklets(columns=["video_id", "masklet_id", "verdict"], reviewed=bool(only))
        if only:
            rows = rows.filter(pc.is_in(pc.coalesce(rows["review"], rows["verdict"]), value_set=pa.array(only)))
        masklets: dict[str, list[int]] = {}
        for video_id, masklet_id in zip(rows["video_id"].to_pylist(), rows["masklet_id"].to_pylist()):
            masklets.setdefault(video_id, []).append(masklet_id)
        videos = self.tables.videos(columns=["video_id", "uri"]).to_pylist()
        self.videos = [(row["video_id"], row["uri"], masklets[row["video_id"]]) for row in videos if row["video_id"] in masklets]
        if not self.videos:
            verdicts = f"with the verdict {' or '.join(only)} " if only else ""
            raise ConfigError(f"{url} holds no masklets {verdicts}to learn from")

    def __len__(self) -> int:
        return len(self.videos)

    def annotation(self, index: int) -> Annotated:
        video_id, uri, masklet_ids = self.videos[index]
        wanted = pc.field("masklet_id").isin(masklet_ids)
        rows = self.tables.masks(video_id, columns=["frame_index", "rle"], filter=wanted).to_pylist()  # by masklet, then by frame
        frames: dict[int, list[Rle]] = {}
        for row in rows:
            frames.setdefault(row["frame_index"], []).append(Rle.from_coco(row["rle"]))
        numbers = sorted(frames)
        return Annotated(uri, numbers, [frames[number] for number in numbers])


class DavisClips:
    """``JPEGImages/VIDEO/00000.jpg`` and ``Annotations/VIDEO/00000.png``, with or without a folder ``480p`` or
    ``Full-Resolution`` between."""

    def __init__(self, root: Path) -> None:
        pictures = [root / "JPEGImages" / inner for inner in _DAVIS_FOLDERS]
        masks = [root / "Annotations" / inner for inner in _DAVIS_FOLDERS]
        self.pictures = next((folder for folder in pictures if folder.is_dir()), pictures[-1])
        self.masks = next((folder for folder in masks if folder.is_dir()), masks[-1])
        self.videos = sorted(folder.name for folder in self.masks.glob("*") if any(folder.glob("*.png")))
        if not self.videos:
            raise ConfigError(f"{root} holds no annotated video, expected Annotations/VIDEO/00000.png and JPEGImages/VIDEO/")

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, index: int, request: ClipRequest, rng: Generator) -> Clip | None:
        video = self.videos[index]
        names = sorted(path.stem for path in (self.masks / video).glob("*.png"))
        names = [names[place] for place in choose_frames(len(names), request, rng)]
        labels = np.stack([_labels(self.masks / video / f"{name}.png") for name in names])
        numbers = np.setdiff1d(np.unique(labels[0]), (0, _VOID))
        shares = (labels[0] == numbers[:, None, None]).mean(axis=(1, 2))
        chosen = numbers[choose_objects(shares, request, rng)]
        if not len(chosen):
            return None
        frames = np.stack([_picture(self.pictures / video / f"{name}.jpg") for name in names])
        if frames.shape[1:3] != labels.shape[1:]:
            raise VideoError(f"{video}: pictures are {frames.shape[1:3]}, masks {labels.shape[1:]}, expected the same size")
        return Clip(frames, labels[:, None] == chosen[:, None, None])


def read_sav(path: Path) -> AnnotatedVideo:
    """A file of SA-V's masklets.

    Raises:
        VideoError: it is none, or annotates no frame.
    """
    try:
        video = read_annotation(json.loads(path.read_bytes()), path.stem)
    except (OSError, ValueError, TypeError) as error:
        raise VideoError(f"{path} is no SA-V annotation: {type(error).__name__}: {error}") from error
    if not video.frames:
        raise VideoError(f"{path} annotates no frame")
    return video


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error}") from error


def _labels(path: Path) -> np.ndarray:
    try:
        return read_labels(path)
    except VideoError as error:
        raise VideoError(f"{path} {error}") from error
