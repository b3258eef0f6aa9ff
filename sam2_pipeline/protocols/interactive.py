"""Clicks on several frames: the SAM 2 paper's offline and online protocols for promptable video segmentation (section 6.1).

Offline, one may look at the whole video as often as one likes: the next frame to click on is the one with the worst mask. Online,
the video is seen once: it pauses where a mask gets bad, and what is past stays as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation.measures import jaccard
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.protocols.prompted import Interaction, Played, by_frame, collect, predicted
from sam2_pipeline.protocols.prompting import TrueObject
from sam2_pipeline.segment.video import VideoSegmenter

PAUSE_BELOW = 0.75  # the IoU at which the online protocol corrects


@dataclass(frozen=True, slots=True)
class Effort:
    """What a user would do: clicks on a frame, and frames to click on, per object. The defaults are the paper's."""

    clicks: int = 3
    frames: int = 8

    def __post_init__(self) -> None:
        if self.clicks < 1 or self.frames < 1:
            raise ConfigError(f"{self.clicks} clicks on {self.frames} frames, expected at least 1 each")


def offline(segmenter: VideoSegmenter, frames: FrameSource, objects: Sequence[TrueObject], effort: Effort) -> Iterator[Played]:
    """What there is after clicks on 1, 2, ... frames of each object; fewer times where no frame is left that has an error."""
    # Everything is kept: any frame may be corrected.
    interaction = Interaction(segmenter.open(frames, history_frames=None))
    for one in by_frame(objects):
        interaction.click(one, one.first, None, effort.clicks)
    for count in range(1, effort.frames + 1):
        masks = collect(interaction.walk(objects), objects)
        yield Played(masks, {object_id: list(prompts) for object_id, prompts in interaction.prompts.items()})
        worst = {one.object_id: _worst(one, masks[one.object_id], interaction.frames(one.object_id)) for one in objects}
        faulty = [(frame, one) for one in objects if (frame := worst[one.object_id]) is not None]
        if count == effort.frames or not faulty:
            return
        for frame, one in sorted(faulty, key=lambda pair: (pair[0], pair[1].object_id)):
            interaction.click(one, frame, masks[one.object_id][frame], effort.clicks)


def online(segmenter: VideoSegmenter, frames: FrameSource, objects: Sequence[TrueObject], effort: Effort) -> Played:
    """One walk forward; an object whose IoU falls below 0.75 gets clicks there and then, on at most so many frames."""
    interaction = Interaction(segmenter.open(frames))
    masks: dict = {one.object_id: {} for one in objects}
    start = min(one.first for one in objects)
    for one in by_frame(objects):
        if one.first == start:
            interaction.click(one, start, None, effort.clicks)
    for result in interaction.walk(objects):
        frame = result.frame_index
        present = [one for one in objects if frame in one.masks]
        found = predicted(result, [one.object_id for one in present])
        for one in present:
            mask, prompted = found.get(one.object_id), interaction.frames(one.object_id)
            bad = mask is None or jaccard(mask, one.masks[frame]) < PAUSE_BELOW
            if bad and frame not in prompted and len(prompted) < effort.frames:
                mask = interaction.click(one, frame, mask, effort.clicks)
            masks[one.object_id][frame] = mask
    return Played(masks, interaction.prompts)


def _worst(one: TrueObject, masks: dict, prompted: set[int]) -> int | None:
    """The frame with the lowest IoU of those without prompts; None where the masks of all are right."""
    ious = {frame: jaccard(masks[frame], true) for frame, true in one.masks.items() if frame not in prompted}
    frame = min(ious, key=lambda frame: (ious[frame], frame), default=None)
    return None if frame is None or ious[frame] == 1 else frame
