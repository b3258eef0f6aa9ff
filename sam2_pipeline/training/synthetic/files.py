"""Synthetic scenes as others read them: a source of frames, and files in the layouts of SA-V and DAVIS.

    FOLDER/videos/NAME.mp4               the video
    FOLDER/videos/NAME_manual.json       SA-V: masklets as RLE, on every annotated frame
    FOLDER/Annotations/NAME/00000.png    DAVIS: a palette picture per annotated frame, named by native frame number

A DAVIS picture has one object per pixel, so that there a whole is without its parts; value ``i + 1`` is mask ``i``. SA-V's
``masklet_id`` is ``i``; objects that are on no annotated frame are left out, as in SA-V.
"""

import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.palette import save_labels
from sam2_pipeline.formats.sav_content import write_annotation
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.annotated import AnnotatedVideo, annotated_masklet
from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.masklets.rle import Rle, encode_batch
from sam2_pipeline.masklets.work import VideoInfo
from sam2_pipeline.training.synthetic.options import SceneOptions
from sam2_pipeline.training.synthetic.scene import Scene, make_scene

_CRF, _COARSE_CRF = 18, 30  # H.264's quality: hardly a loss, and that of a scene with compression


class SyntheticVideo(Video):
    """A scene as a `FrameSource`: frames are made when they are asked for, squeezed with Pillow's bicubic filter."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(f"synthetic:{scene.seed}")
        self.scene = scene
        self.height, self.width, self.num_frames = scene.height, scene.width, scene.num_frames
        self.fps, self.duration_s = scene.options.fps, scene.num_frames / scene.options.fps
        self.codec, self.rotation = "synthetic", 0

    def _frame(self, t: int, size: tuple[int, int] | None) -> Frame:
        image = self.scene.frame(t)
        if size is not None:
            image = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        return Frame(t, t / self.fps, image)

    def _forward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        for t in range(start, stop):
            yield self._frame(t, size)

    def _backward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        for t in range(start, stop - 1, -1):
            yield self._frame(t, size)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """What `write_clip` wrote: the video, SA-V's annotation, and the folder of DAVIS pictures."""

    video: Path
    annotation: Path
    pictures: Path


def write_clip(scene: Scene, folder: str | Path, name: str, *, annotate_every: int = 1, crf: int | None = None) -> ClipFiles:
    """Writes a scene as H.264 in mp4, SA-V JSON and DAVIS pictures; the annotation last, so that where it is all is.

    Args:
        annotate_every: 1 annotates every frame, 4 every fourth as SA-V does.
        crf: H.264's quality, 0 (without loss of its own) to 51; None: good, or coarse in scenes with compression.

    Raises:
        ConfigError: the picture's sides are not even, as H.264 needs them, or an argument is out of range.
    """
    if scene.height % 2 or scene.width % 2:
        raise ConfigError(f"scene is {scene.height}x{scene.width}, expected even sides to write a video")
    if annotate_every < 1:
        raise ConfigError(f"annotate_every is {annotate_every}, expected 1 or more")
    if crf is None:
        crf = _CRF if scene.sensor.jpeg_quality is None else _COARSE_CRF
    if not 0 <= crf <= 51:
        raise ConfigError(f"crf is {crf}, expected 0 to 51")
    videos, pictures = Path(folder) / "videos", Path(folder) / "Annotations" / name
    videos.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    files = ClipFiles(videos / f"{name}.mp4", videos / f"{name}_manual.json", pictures)
    frames = range(0, scene.num_frames, annotate_every)
    masks = []
    with av.open(str(files.video), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(scene.options.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}  # the same bytes everywhere
        for t in range(scene.num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.frame(t), format="rgb24")))
            if t in frames:
                masks.append(encode_batch(scene.masks(t)))
                save_labels(scene.labels(t), pictures / f"{t:05d}.png")
        container.mux(stream.encode())
    files.annotation.write_text(json.dumps(_annotation(scene, name, frames, masks)))
    return files


def make_dataset(
    folder: str | Path, seeds: Iterable[int], options: SceneOptions | None = None, *, annotate_every: int = 1
) -> list[ClipFiles]:
    """Writes a clip ``synthetic_SEED`` for every seed (see `write_clip`)."""
    return [
        write_clip(make_scene(seed, options), folder, f"synthetic_{seed:06d}", annotate_every=annotate_every) for seed in seeds
    ]


def _annotation(scene: Scene, name: str, frames: Sequence[int], masks: Sequence[Sequence[Rle]]) -> dict[str, Any]:
    """SA-V's annotation of one clip, without the objects that no annotated frame shows."""
    fps, total = scene.options.fps, scene.num_frames
    seen = [number for number in range(scene.num_objects) if any(rles[number].area for rles in masks)]
    edited = {"masklet_edited_frame_count": len(frames)}  # every mask is as good as one that a person drew
    masklets = tuple(
        annotated_masklet(
            name, number, {t: rles[number] for t, rles in zip(frames, masks)}, fps, object_id=number, attributes=edited
        )
        for number in seen
    )
    info = VideoInfo(scene.width, scene.height, fps, total, total / fps, "")
    attributes = {"video_environment": "Synthetic", "video_split": "train"}
    return write_annotation(AnnotatedVideo(name, info, tuple(frames), masklets, attributes=attributes))
