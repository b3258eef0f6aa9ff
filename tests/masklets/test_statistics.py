"""The measures equal those that SA-V states for one of its videos, in whatever order the frames come."""

import json
import random
from pathlib import Path

import pytest

from sam2_pipeline.masklets.masklet import MaskletFrame
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.schema import MASKLETS
from sam2_pipeline.masklets.statistics import MaskletStatistics, Succession, measure, size_bucket

SAV = json.loads((Path(__file__).parents[1] / "golden" / "sav_measures.json").read_text())
HEIGHT, WIDTH = SAV["height"], SAV["width"]


def mask_frame(index, area, predicted_iou=0.5, object_score=1.0, stability_score=0.5):
    rle = Rle.from_coco({"size": [HEIGHT, WIDTH], "counts": [0, area, HEIGHT * WIDTH - area]})
    return MaskletFrame(index, index / 24, rle, predicted_iou, object_score, stability_score)


def measure_in_any_order(frames, ordered):
    statistics, succession = MaskletStatistics(), Succession()
    for frame in frames:
        statistics.add(frame)
    for frame in ordered:
        succession.add(frame.rle, frame.rle.area)
    return statistics.row(succession)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("number", range(len(SAV["masklets"])))
def test_measures_equal_sav(number, every):
    """``every`` native frames there is an annotated one; SA-V counts first appearances in annotated frames."""
    stated = SAV["masklets"][number]
    frames = [mask_frame(index * every, area) for index, area in enumerate(stated["areas"])]
    found = measure(frames)
    assert found["size_abs"] == pytest.approx(stated["size_abs"], rel=1e-10)
    assert found["size_rel"] == pytest.approx(stated["size_rel"], rel=1e-7)
    assert found["size_bucket"] == stated["size_bucket"]
    assert found["visibility_changes"] == stated["visibility_changes"]
    assert found["first_frame_index"] == stated["first_appeared_frame"] * every
    assert found["frame_count"] == stated["frame_count"] == 121
    shuffled = random.Random(number).sample(frames, len(frames))
    assert found.pop("size_bucket") == stated["size_bucket"]
    again = measure_in_any_order(shuffled, frames)
    assert {name: again[name] for name in found} == pytest.approx(found, rel=1e-12)


def test_golden_covers_the_cases():
    changes = [masklet["visibility_changes"] for masklet in SAV["masklets"]]
    late = [masklet["visibility_changes"] for masklet in SAV["masklets"] if masklet["first_appeared_frame"]]
    assert max(changes) == 12
    assert late == [0]


def test_scores_are_those_of_visible_frames():
    found = measure([mask_frame(0, 10, 0.9, 2.0, 0.8), mask_frame(4, 0, 0.1, -4.0, 0.0), mask_frame(8, 20, 0.7, 5.0, 0.6)])
    assert found["predicted_iou_mean"] == pytest.approx(0.8)
    assert found["object_score_mean"] == pytest.approx(1.0)
    assert found["stability_score_mean"] == pytest.approx(0.7)
    assert found["stability_score_min"] == 0.6
    assert found["visible_frame_count"] == 2
    assert found["visibility_changes"] == 2
    assert (found["first_frame_index"], found["last_frame_index"]) == (0, 8)


def test_what_changes_from_mask_to_mask():
    """Areas 10, 10, 30 (a jump), none, 20, 5 (a jump), 5; masks begin at the first pixel, so IoUs are ratios of areas."""
    areas = [10, 10, 30, 0, 20, 5, 5]
    found = measure(mask_frame(index, area, predicted_iou=1 - index / 10) for index, area in enumerate(areas))
    ious = [1, 1 / 3, 1 / 4, 1]
    assert found["temporal_iou_mean"] == pytest.approx(sum(ious) / 4) and found["temporal_iou_min"] == 1 / 4
    assert found["flicker"] == pytest.approx((2 + 2) / 6)  # it vanishes, comes back, and jumps twice
    assert found["predicted_iou_min"] == pytest.approx(0.4)
    assert found["num_components_max"] == 1 and 0 < found["border_touch_mean"] < 1


def test_never_visible():
    found = measure([mask_frame(0, 0, object_score=-1.0), mask_frame(1, 0, object_score=-2.0)])
    assert found["first_frame_index"] is found["last_frame_index"] is found["predicted_iou_mean"] is None
    assert found["stability_score_mean"] is found["stability_score_min"] is found["predicted_iou_min"] is None
    assert found["temporal_iou_mean"] is found["flicker"] is found["num_components_max"] is found["border_touch_mean"] is None
    assert (found["frame_count"], found["visible_frame_count"], found["visibility_changes"]) == (2, 0, 0)
    assert (found["size_abs"], found["size_rel"], found["size_bucket"]) == (0.0, 0.0, "small")
    assert found["object_score_mean"] == -1.5


def test_bucket_borders():
    assert [size_bucket(area) for area in (0, 1023.9, 1024, 9215.9, 9216, 1e9)] == ["small"] * 2 + ["medium"] * 2 + ["large"] * 2


def test_measures_are_columns():
    assert set(measure([mask_frame(0, 1)])) < set(MASKLETS.names)


def test_mistakes_are_refused():
    statistics = MaskletStatistics()
    statistics.add(mask_frame(3, 5))
    with pytest.raises(ValueError, match="frame 3 was added twice"):
        statistics.add(mask_frame(3, 0))
    with pytest.raises(ValueError, match="frame 4 has 4 pixels"):
        statistics.add(MaskletFrame(4, 0.0, Rle.empty(2, 2), 0.0, 0.0, 0.0))
