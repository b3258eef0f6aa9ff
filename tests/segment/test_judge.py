"""Judging asks the model what anybody could ask it by hand, and changes no mask."""

from dataclasses import replace

import numpy as np
import pytest

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.clean import CleanRules, clean
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.verdict import VerdictRules, judge
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.image import ImageEmbedding, ImageSegmenter
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.judge import HeldMasks, JudgeOptions, _looks
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.torch_engine import TorchEngine
from sam2_pipeline.segment.video import VideoSegmenter

PROMPTS = [
    Prompt(10, 0, np.array([[40, 30]]), np.array([1])),
    Prompt(30, 6, np.array([[80, 60]]), np.array([1])),
    Prompt(50, 13, np.array([[20, 60]]), np.array([1])),
]
OPTIONS = JudgeOptions(reprompt_frames=2)


@pytest.fixture(scope="module")
def source(video: list[np.ndarray]) -> ArrayFrames:
    return ArrayFrames(video, fps=24)


@pytest.fixture(scope="module")
def masklets(model: Sam2, source: ArrayFrames) -> list[Masklet]:
    """Three objects, from the first, a middle and the last frame."""
    return MaskletGenerator(model, judge=OPTIONS).generate(source, PROMPTS)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def mask(masklet: Masklet, frame: int) -> np.ndarray:
    return decode(masklet.frames[frame].rle)


def cycle(model: Sam2, source: ArrayFrames, masklet: Masklet, start: int, end: int) -> float:
    """One masklet tracked alone from its mask on one frame to another."""
    session = VideoSegmenter(model, TrackingOptions(history_frames=0)).open(source)
    session.prompt(Prompt(1, start, mask=masklet.frames[start].rle))
    *_, result = session.propagate(start, abs(start - end), reverse=start > end)
    return overlap(result.masks()[0].numpy(), mask(masklet, end))


def test_judging_changes_no_mask(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    plain = MaskletGenerator(model).generate(source, PROMPTS)
    assert all(one.judgement is None for one in plain)
    assert [replace(one, judgement=None) for one in masklets] == plain
    assert all(one.judgement is not None for one in masklets)


def test_cycles_are_those_of_each_masklet_alone(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    first, middle, last = masklets
    assert all(frame.rle.area for one in masklets for frame in one.frames), "all are visible everywhere"
    expected = [
        cycle(model, source, first, 13, 0),
        min(cycle(model, source, middle, 13, 6), cycle(model, source, middle, 0, 6)),
        cycle(model, source, last, 0, 13),
    ]
    assert [one.judgement.cycle_iou for one in masklets] == pytest.approx(expected, abs=1e-3)
    assert all(0 < iou < 1 for iou in expected)


def test_agreement_is_that_of_single_pictures(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    segmenter = ImageSegmenter(model)
    for masklet in masklets:
        found = []
        for frame in (6, 13):  # of two frames of fourteen the last is one
            [picture] = DecodedFrames(source, 128, TorchEngine(model, TrackingOptions()).prepare).images(frame, frame + 1)
            embedding = ImageEmbedding(model.encode_frames(picture.image_3SS[None]), source.height, source.width)
            true = mask(masklet, frame)
            rows, columns = np.flatnonzero(true.any(axis=1)), np.flatnonzero(true.any(axis=0))
            box, point = [columns[0], rows[0], columns[-1], rows[-1]], centre(true)[:2]
            prediction = segmenter.predict(embedding, points=[point], labels=[1], boxes=box, multimask=False)
            found.append(overlap(prediction.masks()[0, 0].numpy(), true))
        assert masklet.judgement.reprompt_iou == pytest.approx(np.mean(found), abs=1e-3)


def test_the_verdict_is_that_of_the_measures(masklets: list[Masklet]) -> None:
    for masklet in masklets:
        asked = masklet.judgement.cycle_iou, masklet.judgement.reprompt_iou
        assert masklet.judgement == judge(measure(masklet.frames), *asked, VerdictRules())


def test_from_tables_on_disk_it_is_the_same(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    generator = MaskletGenerator(model, judge=OPTIONS)
    stream = generator.stream(source, PROMPTS)
    looked = []
    with MaskSpool("v") as spool:
        for annotated in stream:
            for masklet_id, frame in annotated.masks.items():
                spool.add(masklet_id, frame)
        assert generator.judge(source, stream.seeds, spool, lambda: looked.append(1)) == {
            one.masklet_id: one.judgement for one in masklets
        }
    # From 13 back to 0, from 0 on to 13, and two frames again.
    assert len(looked) == 14 + 14 + 2
    assert MaskletGenerator(model).judge(source, stream.seeds, HeldMasks(masklets)) == {}


def test_what_is_never_visible_is_rejected(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    gone = replace(masklets[1], frames=tuple(replace(f, rle=Rle.empty(90, 120)) for f in masklets[1].frames))
    seeds = [masklets[0].seed, gone.seed]
    found = MaskletGenerator(model, judge=OPTIONS).judge(source, seeds, HeldMasks([masklets[0], gone]))
    assert (found[1].verdict, found[1].reasons, found[1].cycle_iou) == ("reject", ("never_visible",), None)
    assert found[0] == masklets[0].judgement
    nothing = MaskletGenerator(model, judge=OPTIONS).judge(source, [gone.seed], HeldMasks([gone]))
    assert nothing == {1: found[1]}


def visible(masklet: Masklet, frames: range) -> Masklet:
    """The masklet as if it were visible on some frames only."""
    kept = (f if f.frame_index in frames else replace(f, rle=Rle.empty(90, 120)) for f in masklet.frames)
    return replace(masklet, frames=tuple(kept))


def test_each_sets_out_and_arrives_where_it_has_to(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    """One arrives before the other sets out, and nobody is under way between."""
    late, early = visible(masklets[0], range(9, 12)), visible(masklets[1], range(4, 7))
    found = MaskletGenerator(model, judge=OPTIONS).judge(source, [late.seed, early.seed], HeldMasks([late, early]))
    expected = [cycle(model, source, late, 11, 9), cycle(model, source, early, 4, 6)]
    assert [found[0].cycle_iou, found[1].cycle_iou] == pytest.approx(expected, abs=1e-3)
    other = visible(masklets[1], range(6, 9))
    found = MaskletGenerator(model, judge=OPTIONS).judge(source, [late.seed, other.seed], HeldMasks([late, other]))
    assert [found[n].cycle_iou for n in (0, 1)] == pytest.approx([expected[0], cycle(model, source, other, 8, 6)], abs=1e-3)


def test_few_frames_are_looked_at_again(masklets: list[Masklet]) -> None:
    """Two for all; one more for a masklet that is on neither."""
    store = HeldMasks([masklets[0], visible(masklets[1], range(8, 11)), visible(masklets[2], range(0))])
    assert _looks([0, 1, 2], store, 2) == {6: [0], 9: [1], 13: [0]}
    assert _looks([1], store, 9) == {8: [1], 9: [1], 10: [1]}
    assert _looks([2], store, 2) == {}


def test_cleaning_is_applied_to_every_mask(model: Sam2, source: ArrayFrames, masklets: list[Masklet]) -> None:
    rules = CleanRules(min_component_area=40, max_hole_area=40)
    changed = 0
    for raw, tidy in zip(masklets, MaskletGenerator(model, clean=rules).generate(source, PROMPTS), strict=True):
        assert [f.rle for f in tidy.frames] == [clean(f.rle, rules) for f in raw.frames]
        assert [f.raw_area for f in tidy.frames] == [f.raw_area for f in raw.frames] == [f.rle.area for f in raw.frames]
        changed += sum(a.rle != b.rle for a, b in zip(raw.frames, tidy.frames))
    assert changed > 5


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="reprompt_frames is 0, expected at least 1"):
        JudgeOptions(reprompt_frames=0)
