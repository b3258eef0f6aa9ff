"""``inference_state``: a dict, as scripts expect it, over a `VideoSession` that holds the truth."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from sam2_pipeline.model.memory_bank import FrameRecord
from sam2_pipeline.segment.inputs import NetworkFrames
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.session import VideoSession
from sam2_pipeline.segment.torch_engine import TorchEngine


class InferenceState(dict):
    """The reference's keys. Per-object entries (keyed by object *index*) are read-only views, made when asked for."""

    def __init__(self, session: VideoSession[FrameResult], engine: TorchEngine, offload_video: bool, offload_state: bool):
        frames = session.frames
        super().__init__(
            images=_Images(frames),
            num_frames=frames.num_frames,
            offload_video_to_cpu=offload_video,
            offload_state_to_cpu=offload_state,
            video_height=frames.height,
            video_width=frames.width,
            device=engine.model.device,
            storage_device=engine.storage,
            obj_id_to_idx=OrderedDict(),
            obj_idx_to_id=OrderedDict(),
            obj_ids=[],
        )
        self.session = session

    def refresh(self) -> None:
        """Brings the ids up to date, in place: scripts hold on to the list."""
        ids = self.session.object_ids
        self["obj_ids"][:] = ids
        for name, pairs in (("obj_id_to_idx", zip(ids, range(len(ids)))), ("obj_idx_to_id", enumerate(ids))):
            self[name].clear()
            self[name].update(pairs)

    def __missing__(self, key: str) -> Any:
        objects = list(enumerate(self.session.objects.values()))
        if key == "output_dict_per_obj":
            return {i: _outputs(obj.bank.prompted, obj.bank.tracked) for i, obj in objects}
        if key == "temp_output_dict_per_obj":
            return {i: _outputs(obj.pending_prompted, obj.pending_tracked) for i, obj in objects}
        if key == "frames_tracked_per_obj":
            return {i: {f: {"reverse": way < 0} for f, way in obj.visits.frames().items()} for i, obj in objects}
        if key == "point_inputs_per_obj":
            return {
                i: {
                    f: {"point_coords": torch.from_numpy(xy)[None], "point_labels": torch.from_numpy(marks)[None]}
                    for f, (xy, marks) in obj.points.items()
                }
                for i, obj in objects
            }
        raise KeyError(key)


def _outputs(prompted: dict[int, FrameRecord], tracked: dict[int, FrameRecord]) -> dict[str, dict[int, dict[str, Any]]]:
    return {
        "cond_frame_outputs": {frame: _output(record) for frame, record in prompted.items()},
        "non_cond_frame_outputs": {frame: _output(record) for frame, record in tracked.items()},
    }


def _output(record: FrameRecord) -> dict[str, Tensor | None]:
    memory = record.memory_TC
    side = 0 if memory is None else round(memory.shape[0] ** 0.5)
    return {
        "maskmem_features": None if memory is None else memory.T.reshape(1, -1, side, side),
        "pred_masks": None if record.logits_HW is None else record.logits_HW[None, None],
        "obj_ptr": record.pointer_D[None],
        "object_score_logits": record.object_score.view(1, 1),
    }


class _Images:
    """``inference_state["images"]``: network inputs ``[3, S, S]`` by frame number, decoded when asked for."""

    def __init__(self, frames: NetworkFrames):
        self._frames = frames

    def __len__(self) -> int:
        return self._frames.num_frames or 0

    def __getitem__(self, index: int) -> Tensor:
        for frame in self._frames.images(index, index + 1):
            return frame.image_3SS
        raise IndexError(index)
