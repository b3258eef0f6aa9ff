"""Clips for PyTorch are the frames and masks of the dataset, whoever loads them."""

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from mask_forms import disc, write_tables
from torch.utils.data import DataLoader, Dataset
from videos import write_video

from sam2_pipeline import MaskletDataset, TorchMaskletDataset
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import decode

ANNOTATED = range(0, 24, 4)


@pytest.fixture
def dataset(tmp_path):
    """A video with a small object that comes late and a large one, and a short video with one."""
    write_video(tmp_path / "a.mp4", [np.full((24, 32, 3), 8 * t, np.uint8) for t in range(24)])
    write_video(tmp_path / "b.mp4", [np.full((24, 32, 3), 90, np.uint8) for _ in range(2)])
    late = {f: disc(8, 8, 4 if f >= 12 else 0) for f in ANNOTATED}
    videos = {"a": {5: late, 4: {f: disc(16, 24 - f / 4, 6) for f in ANNOTATED}}, "b": {9: {0: disc(9, 9, 5)}}}
    counts = {"a": 6, "b": 1}
    facts_of = {name: {"uri": str(tmp_path / f"{name}.mp4"), "annotated_frame_count": counts[name]} for name in counts}
    return MaskletDataset(write_tables(tmp_path / "out", videos, "auto", facts_of=facts_of))


def test_clips(dataset):
    clips = TorchMaskletDataset(dataset, 3)
    assert isinstance(clips, Dataset)
    found = [clips[n] for n in range(len(clips))]
    assert [(clip["video_id"], clip["frame_indices_T"].tolist()) for clip in found] == [
        ("a", [0, 4, 8]), ("a", [12, 16, 20]), ("b", [0])
    ]  # fmt: skip
    assert [clip["masklet_ids_N"].tolist() for clip in found] == [[1], [0, 1], [0]], "only what a clip shows"
    for clip in found:
        frames, masks = clip["frames_T3HW"], clip["masks_TNHW"]
        assert frames.dtype == torch.uint8 and masks.dtype == torch.bool
        assert frames.shape == (len(clip["frame_indices_T"]), 3, 24, 32)
        assert masks.shape == (len(frames), len(clip["masklet_ids_N"]), 24, 32)
        for place, index in enumerate(clip["frame_indices_T"].tolist()):
            for n, number in enumerate(clip["masklet_ids_N"].tolist()):
                one = {frame.frame_index: frame.rle for frame in dataset.masklet(clip["video_id"], number).frames}
                assert np.array_equal(masks[place, n].numpy(), decode(one[index]))
    assert abs(found[1]["frames_T3HW"][1].float().mean() - 8 * 16) < 4


def test_choices(dataset):
    assert [clip["frame_indices_T"].tolist() for clip in map(TorchMaskletDataset(dataset, 2, stride=3).__getitem__, (0, 1))] == [
        [0, 12], [0]
    ]  # fmt: skip
    largest = TorchMaskletDataset(dataset, 3, most=1, size=(12, 16))[1]
    assert largest["masklet_ids_N"].tolist() == [1] and largest["masks_TNHW"].shape == (3, 1, 12, 16)
    assert largest["frames_T3HW"].shape == (3, 3, 12, 16)
    late = TorchMaskletDataset(dataset, 3, filter=pc.field("first_frame_index") > 0)
    assert len(late) == 2 and not late[0]["masks_TNHW"].any() and late[1]["masklet_ids_N"].tolist() == [0]
    with pytest.raises(ConfigError, match="holds no such masklets"):
        TorchMaskletDataset(dataset, filter=pc.field("size_rel") > 1)
    with pytest.raises(ConfigError, match="stride 0"):
        TorchMaskletDataset(dataset, stride=0)


def test_loaders(dataset):
    clips = TorchMaskletDataset(dataset, 3)
    for workers in (0, 1):
        loader = DataLoader(clips, batch_size=None, num_workers=workers)
        assert [clip["frames_T3HW"].shape[0] for clip in loader] == [3, 3, 1]
