"""Verdicts beside the truth: what counts as good, and the shares."""

import numpy as np
from oracle import FRAMES, square, two_squares

from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.protocols.trial import _joined
from sam2_pipeline.protocols.verdicts import JudgedMasklet, VerdictFigures, judged


def masklet(number, masks, verdict, object_id=None, reasons=()):
    frames = tuple(MaskletFrame(t, t / 24, rle, 0.9, 1.0, 0.8) for t, rle in masks.items())
    kind = "auto" if object_id is None else "prompted"
    judgement = None if verdict is None else Judgement(0.5, 0.25, verdict, reasons)
    return Masklet("v", MaskletSeed(number, kind, Prompt(number, 0, [[1, 1]], [1]), object_id), frames, judgement)


def test_masklets_beside_the_truth():
    truth = two_squares()
    first, second = truth
    empty = {t: Rle.empty(mask.height, mask.width) for t, mask in truth[first].items()}
    half = truth[first] | {t: empty[t] for t in range(FRAMES // 2, FRAMES)}
    found = judged(
        [
            masklet(0, truth[first], "accept"),
            masklet(1, half, "refine", reasons=("cycle_iou",)),
            masklet(2, empty, "reject"),  # shows nothing, so there is nothing to be good or bad
            masklet(3, truth[first], "reject", second, ("flicker",)),  # prompted for the one, it shows the other
            masklet(4, truth[second], "accept", second),
            masklet(5, {t: square(30, 50, 3) for t in range(FRAMES)}, "accept"),
        ],
        truth,
    )
    assert [one.masklet_id for one in found] == [0, 1, 3, 4, 5]
    ious = {one.masklet_id: one.iou for one in found}
    assert ious[0] == ious[4] == 1 and ious[1] == 0.5 and ious[3] < 0.5 and ious[5] < 0.1
    assert found[0].measures["cycle_iou"] == 0.5 and found[0].measures["reprompt_iou"] == 0.25
    assert found[0].to_json()["verdict"] == "accept"
    assert judged([masklet(0, truth[first], None)], truth) == ()

    figures = VerdictFigures(found)
    assert figures.counts == {"accept": 3, "refine": 1, "reject": 1} and figures.good == 2
    assert figures.share_good("accept") == 2 / 3 and figures.share_good("reject") == 0
    assert figures.recall == 1
    assert figures.to_json()["reasons"] == {"cycle_iou": 1, "flicker": 1}
    none = VerdictFigures(())
    assert none.share_good("accept") is None and none.recall is None


def measured(iou, **measures):
    known = {"cycle_iou": 0.9, "reprompt_iou": 0.9, "predicted_iou_mean": 0.9, "stability_score_mean": 0.9}
    known |= {"flicker": 0.15} | measures
    return JudgedMasklet(0, Judgement(None, None, "refine"), known, iou)


def test_limits_in_hindsight():
    good = [measured(0.8, cycle_iou=0.72), measured(0.9, stability_score_mean=None)]
    bad = [measured(0.5, cycle_iou=0.68), measured(0.7, reprompt_iou=0.6)]
    best = VerdictFigures((*good, *bad)).best_limits()
    assert best.accept_from == {"cycle_iou": 0.7, "reprompt_iou": 0.9, "predicted_iou": 0.9, "stability": 0.9, "flicker": 0.2}
    assert (best.precision, best.recall) == (1, 1)
    shaky = VerdictFigures((*good, measured(0.5, flicker=0.35), measured(0.9, flicker=None)))
    assert (shaky.best_limits().accept_from["flicker"], shaky.best_limits().recall) == (0.2, 1)
    hopeless = VerdictFigures((measured(0.8), measured(0.2))).best_limits()
    assert (hopeless.precision, hopeless.recall) == (0.5, 1)
    assert VerdictFigures(tuple(bad)).best_limits() is None


def test_clicks_on_a_frame_make_one_prompt():
    clicks = [Prompt(1, 0, [[1, 2]], [1]), Prompt(2, 0, [[5, 6]], [1]), Prompt(1, 0, [[3, 4]], [0])]
    first, second = _joined(clicks)
    np.testing.assert_array_equal(first.points_xy, [[1, 2], [3, 4]])
    assert first.point_labels.tolist() == [1, 0] and (second.object_id, len(second.points_xy)) == (2, 1)
