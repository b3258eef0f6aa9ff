"""Planning: units by content, balanced, frozen, and extended without touching what is there."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.manifest import make_unit, plan_work, read_manifest, write_manifest
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import VideoRef


def _videos(count: int) -> list[VideoRef]:
    return [VideoRef(f"v{number:04d}", f"/in/v{number:04d}.mp4", 100 + 7 * number % 50) for number in range(count)]


def _ids(units) -> list[str]:
    return sorted(video.video_id for unit in units for video in unit.videos)


@pytest.mark.parametrize("per_unit", [None, 1, 3, 7, 100])
def test_every_video_is_planned_once(per_unit):
    videos = _videos(50)
    plan = plan_work(videos, videos_per_unit=per_unit)
    assert _ids(plan.units) == [video.video_id for video in videos]
    assert plan.num_videos == 50 and plan.added == tuple(plan.added)
    assert max(len(unit.videos) for unit in plan.units) <= (per_unit or 1)


def test_ids_derive_from_content_not_from_order():
    videos = _videos(20)
    forward, backward = plan_work(videos, videos_per_unit=4), plan_work(videos[::-1], videos_per_unit=4)
    assert {unit.unit_id for unit in forward.units} == {unit.unit_id for unit in backward.units}
    assert make_unit(videos[:3]).unit_id != make_unit(videos[:2]).unit_id


def test_units_are_balanced_and_the_costliest_comes_first():
    videos = [VideoRef(f"v{size}", f"/{size}", size) for size in (1, 2, 3, 4, 5, 6, 7, 8)]
    costs = [sum(v.size_bytes for v in unit.videos) for unit in plan_work(videos, videos_per_unit=2).units]
    assert costs == sorted(costs, reverse=True)
    assert costs == [9, 9, 9, 9]


def test_frames_count_for_more_than_bytes():
    videos = [VideoRef(f"v{frames}", f"/{frames}", 1000 - frames, frames) for frames in (1, 2, 3, 4, 5, 6, 7, 8)]
    plan = plan_work(videos, videos_per_unit=1)
    assert [unit.videos[0].frames for unit in plan.units] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert {sum(v.frames for v in unit.videos) for unit in plan_work(videos, videos_per_unit=2).units} == {9}
    mixed = plan_work([*videos, VideoRef("unprobed", "/u", 998)])
    assert mixed.units[0].videos[0].video_id == "v1"  # 999 bytes: frames and bytes cannot be compared


def test_predictions_are_asked_for_new_videos_only_and_kept(tmp_path):
    storage, asked = Storage(tmp_path / "out"), []

    def predict(videos):
        asked.append([video.video_id for video in videos])
        return [replace(video, frames=10 * int(video.video_id[1:]) + 1) for video in videos]

    write_manifest(storage, plan_work(_videos(3), predict=predict).added)
    planned = read_manifest(storage)
    assert {video.video_id: video.frames for unit in planned for video in unit.videos} == {"v0000": 1, "v0001": 11, "v0002": 21}
    again = plan_work(_videos(5), planned=planned, predict=predict)
    assert asked == [["v0000", "v0001", "v0002"], ["v0003", "v0004"]]
    assert _ids(again.units) == [f"v{number:04}" for number in range(5)]
    assert [unit.videos[0].frames for unit in again.units] == [41, 31, 21, 11, 1]


def test_a_manifest_of_before_there_were_predictions(tmp_path):
    storage = Storage(tmp_path / "out")
    units = plan_work(_videos(3)).units
    write_manifest(storage, units)
    (name,) = (name for name, _ in storage.list("_run/manifest"))
    pq.write_table(pq.read_table(tmp_path / "out" / name).drop_columns("frames"), tmp_path / "out" / name)
    assert set(read_manifest(storage)) == set(units)


def test_unknown_sizes_are_planned_too():
    videos = [VideoRef("a", "/a"), VideoRef("b", "/b", 10), VideoRef("c", "/c", 0)]
    assert _ids(plan_work(videos, videos_per_unit=2).units) == ["a", "b", "c"]
    assert plan_work([]).units == ()


def test_planned_units_are_kept_and_new_videos_added():
    first = plan_work(_videos(6), videos_per_unit=2)
    again = plan_work(_videos(9), planned=first.units, videos_per_unit=2)
    assert {unit.unit_id for unit in first.units} <= {unit.unit_id for unit in again.units}
    assert _ids(again.added) == ["v0006", "v0007", "v0008"]


def test_done_videos_are_left_out_and_broken_units_planned_anew():
    videos = _videos(4)
    first = plan_work(videos, videos_per_unit=2)
    half = first.units[0].videos[0].video_id
    again = plan_work(videos, planned=first.units, done={half}, videos_per_unit=2)
    assert _ids(again.units) == sorted({video.video_id for video in videos} - {half})
    assert first.units[1] in again.units and len(again.added) == 1


def test_a_file_that_has_changed_is_planned_anew():
    video = VideoRef("a", "/a", 10)
    first = plan_work([video])
    again = plan_work([VideoRef("a", "/a", 11)], planned=first.units)
    assert again.units[0].unit_id != first.units[0].unit_id


def test_the_manifest_gives_back_what_was_written(tmp_path):
    storage = Storage(tmp_path / "out")
    assert read_manifest(storage) == []
    first, second = plan_work(_videos(5), videos_per_unit=2).units, (make_unit([VideoRef("x", "/x")]),)
    write_manifest(storage, first)
    write_manifest(storage, first)
    write_manifest(storage, second)
    write_manifest(storage, ())
    units = read_manifest(storage)
    assert sorted(units, key=lambda u: u.unit_id) == sorted([*first, *second], key=lambda u: u.unit_id)


def test_a_damaged_manifest_is_named(tmp_path):
    storage = Storage(tmp_path / "out")
    storage.write_bytes("_run/manifest/x.parquet", b"not parquet")
    with pytest.raises(StorageError, match=r"x\.parquet is not a readable manifest"):
        read_manifest(storage)
