"""Small videos, a run's tables over them, and a stand-in for the model that segments by colour."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from mask_forms import disc, write_tables
from starlette.testclient import TestClient
from videos import write_video

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.pipeline.job import ModelFacts
from sam2_pipeline.serve.app import Site, make_app
from sam2_pipeline.serve.serving import open_site

HEIGHT, WIDTH, FRAMES = 96, 128, 12
BASE = "http://127.0.0.1:8765"
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230))


def picture(t: int) -> np.ndarray:
    """A red, a green and a blue square that move apart; all of one size."""
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for number, colour in enumerate(COLOURS):
        x, y = square(number, t)
        image[y : y + 20, x : x + 20] = colour
    return image


def square(number: int, t: int) -> tuple[int, int]:
    """Its upper left corner on a frame."""
    return ((8 + 3 * t, 8), (60, 36 + t), (96 - 2 * t, 70))[number]


class ColourSegmenter:
    """The pixels of about the colours under the positive points (or in the middle of the box), less those under negative ones."""

    def __init__(self) -> None:
        self.facts = ModelFacts("by-colour", "0" * 64, "cpu")
        self.calls: list[tuple[str, int]] = []

    def preview(self, video: Video, prompt: Prompt, base: Rle | None) -> MaskletFrame:
        self.calls.append(("preview", prompt.frame_index))
        mask = self._mask(video[prompt.frame_index].image, prompt, None if base is None else decode(base))
        return self._frame(prompt.frame_index, video.fps, mask)

    def propagate(self, video: Video, prompts: Sequence[Prompt]) -> Iterator[FrameMasks]:
        by_object: dict[int, list[Prompt]] = {}
        for prompt in sorted(prompts, key=lambda one: one.frame_index):
            by_object.setdefault(prompt.object_id, []).append(prompt)
        first = {number: video[given[0].frame_index].image for number, given in by_object.items()}
        for frame in video:
            self.calls.append(("propagate", frame.index))
            masks = {}
            for number, given in by_object.items():
                mask = np.zeros(frame.image.shape[:2], bool)
                for colour in self._colours(first[number], given[0]):
                    mask = mask | self._near(frame.image, colour)
                for prompt in given[1:]:
                    if prompt.frame_index <= frame.index:
                        mask = self._mask(frame.image, prompt, mask)
                masks[number] = self._frame(frame.index, video.fps, mask)
            yield FrameMasks(frame.index, frame.timestamp_s, masks)

    def _mask(self, image: np.ndarray, prompt: Prompt, base: np.ndarray | None) -> np.ndarray:
        if prompt.mask is not None:
            return decode(prompt.mask)
        mask = np.zeros(image.shape[:2], bool) if base is None else base.copy()
        spots = [(x, y, label) for (x, y), label in zip(prompt.points_xy.tolist(), prompt.point_labels.tolist())]
        if prompt.box_xyxy is not None:
            x0, y0, x1, y1 = prompt.box_xyxy.tolist()
            spots.insert(0, ((x0 + x1) / 2, (y0 + y1) / 2, 1))
        for x, y, label in spots:
            near = self._near(image, image[int(y), int(x)])
            mask = mask | near if label else mask & ~near
        return mask

    def _colours(self, image: np.ndarray, prompt: Prompt) -> list[np.ndarray]:
        if prompt.mask is not None:
            return [image[decode(prompt.mask)].mean(0)]
        positive = prompt.points_xy[prompt.point_labels == 1].tolist()
        if prompt.box_xyxy is not None:
            positive.append(prompt.box_xyxy.reshape(2, 2).mean(0).tolist())
        return [image[int(y), int(x)] for x, y in positive]

    def _near(self, image: np.ndarray, colour: np.ndarray) -> np.ndarray:
        return np.abs(image.astype(float) - colour).max(-1) < 60

    def _frame(self, index: int, fps: float, mask: np.ndarray) -> MaskletFrame:
        return MaskletFrame(index, index / fps, encode(mask), 0.9, 4.0, 0.95)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "videos" / "clip.mp4"
    path.parent.mkdir()
    write_video(path, [picture(t) for t in range(FRAMES)])
    return path


@pytest.fixture
def model():
    return ColourSegmenter()


@pytest.fixture
def annotate(clip, model, tmp_path):
    """Makes a site that annotates the clip, each time as after a restart."""

    def make(*settings: str) -> Site:
        return open_site(str(clip), str(tmp_path / "annotated"), JobConfig.load(overrides=settings), "ann", lambda: model)

    return make


@pytest.fixture
def tables(tmp_path, clip):
    """The output of a run: twenty masklets in two videos, of which one file is there."""
    frames = range(0, FRAMES, 2)
    size = (HEIGHT, WIDTH)
    videos = {
        name: {
            number: {f: disc(20 + 3 * number, 30 + f, 0 if f < number // 3 else 6, size) for f in frames} for number in range(10)
        }
        for name in ("clip", "gone")
    }
    facts = {"width": WIDTH, "height": HEIGHT, "frame_count": FRAMES, "model": "m", "uri": str(clip)}
    places = {"clip": {"uri": str(clip)}, "gone": {"uri": str(tmp_path / "gone.mp4")}}
    return write_tables(tmp_path / "out", videos, "auto", facts=facts, facts_of=places)


@pytest.fixture
def review(tables, model):
    def make(author="rev") -> Site:
        return open_site(tables, None, JobConfig(), author, lambda: model)

    return make


@pytest.fixture
def client():
    """Opens clients of sites; a client raises no exception of the server but gets its answer."""
    opened = []

    def connect(site: Site) -> TestClient:
        found = TestClient(make_app(site), base_url=BASE, raise_server_exceptions=False)
        opened.append(found.__enter__())
        return found

    yield connect
    for found in opened:
        found.__exit__(None, None, None)
