"""One prompt at the start, then tracking to the end: semi-supervised segmentation, and its forms with a box or clicks."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.protocols.prompting import Kind, TrueObject, next_click, prompt_whole
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.video import VideoSegmenter


@dataclass(frozen=True)
class Played:
    """What came of a protocol on one video: masks of every object from its first frame on, and all prompts that were given."""

    masks: Masks
    prompts: dict[int, list[Prompt]]


@dataclass
class Interaction:
    """A session that writes down its prompts."""

    session: PromptedSession
    prompts: dict[int, list[Prompt]] = field(default_factory=dict)

    def give(self, prompt: Prompt) -> Rle:
        """The object's mask on the prompt's frame; clicks add to those that the frame has."""
        result = self.session.prompt(prompt, keep_old=prompt.box_xyxy is None)
        self.prompts.setdefault(prompt.object_id, []).append(prompt)
        return collect_frame(result, [prompt.object_id]).masks[prompt.object_id].rle

    def click(self, one: TrueObject, frame: int, predicted: Rle | None, clicks: int) -> Rle:
        """The object's mask after up to ``clicks`` on its errors; ``predicted`` None: nothing is known of it yet."""
        true = one.masks[frame]
        mask = predicted or Rle.empty(true.height, true.width)
        for _ in range(clicks):
            prompt = next_click(one.object_id, frame, mask, true)
            if prompt is None:
                break
            mask = self.give(prompt)
        return mask

    def frames(self, object_id: int) -> set[int]:
        """Where the object has prompts."""
        return {prompt.frame_index for prompt in self.prompts.get(object_id, ())}

    def walk(self, objects: Sequence[TrueObject]) -> Iterable[FrameResult]:
        """Forward from the first frame of the earliest object to the last that has a true mask."""
        start, last = min(one.first for one in objects), max(max(one.masks) for one in objects)
        return self.session.propagate(start, last - start)


def play(segmenter: VideoSegmenter, frames: FrameSource, objects: Sequence[TrueObject], kind: Kind, clicks: int) -> Played:
    """Prompts every object on its first frame, with a mask, a box or so many clicks, and tracks all of them together."""
    interaction = Interaction(segmenter.open(frames))
    for one in by_frame(objects):
        if kind == "clicks":
            interaction.click(one, one.first, None, clicks)
        else:
            interaction.give(prompt_whole(one, kind))
    return Played(collect(interaction.walk(objects), objects), interaction.prompts)


def by_frame(objects: Iterable[TrueObject]) -> list[TrueObject]:
    """In the order of their first frames: a session keeps the features of the latest frame only."""
    return sorted(objects, key=lambda one: (one.first, one.object_id))


def collect(results: Iterable[FrameResult], objects: Sequence[TrueObject]) -> Masks:
    """Predicted masks wherever there are true ones."""
    masks: Masks = {one.object_id: {} for one in objects}
    for result in results:
        for object_id, rle in predicted(result, [one.object_id for one in objects if result.frame_index in one.masks]).items():
            masks[object_id][result.frame_index] = rle
    return masks


def predicted(result: FrameResult, object_ids: Collection[int]) -> dict[int, Rle]:
    return {object_id: mask.rle for object_id, mask in collect_frame(result, object_ids).masks.items()}
