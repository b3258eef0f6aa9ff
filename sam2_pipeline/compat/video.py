"""``SAM2VideoPredictor``: the reference's session calls over a `VideoSession`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.compat.base import SAM2Base
from sam2_pipeline.compat.models import from_hub
from sam2_pipeline.compat.state import InferenceState
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.model.conventions import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames, NetworkFrames, TensorFrames
from sam2_pipeline.segment.objects import TrackedObject
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.session import VideoSession
from sam2_pipeline.segment.torch_engine import TorchEngine, mask_prompt

Triple = tuple[int, list[int], Tensor]


class SAM2VideoPredictor(SAM2Base):
    """Prompts and propagation on one video per inference state. Masks are float32 logits ``[objects, 1, H, W]``."""

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
        """The predictor of a Hugging Face model id."""
        return cls(*from_hub(model_id, video=True, **kwargs))

    def init_state(
        self,
        video_path: str | Sequence[np.ndarray] | Tensor,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        *,
        video_height: int | None = None,
        video_width: int | None = None,
    ) -> InferenceState:
        """A session on a folder of pictures, a video file, an fsspec URL, a sequence of uint8 arrays, or prepared frames.

        Frames of files are decoded when they are needed (so ``async_loading_frames`` and ``offload_video_to_cpu`` have nothing
        left to do); a float32 tensor ``[T, 3, S, S]`` is taken as resized and normalised already, ``video_height`` and
        ``video_width`` then being the size of the masks to give back.
        """
        engine = TorchEngine(self.model, self.options, torch.device("cpu") if offload_state_to_cpu else self.model.device)
        frames = self._frames(engine, video_path, offload_video_to_cpu, video_height, video_width)
        return InferenceState(VideoSession(engine, frames, self.options), engine, offload_video_to_cpu, offload_state_to_cpu)

    def _frames(
        self,
        engine: TorchEngine,
        video: str | Sequence[np.ndarray] | Tensor,
        offload: bool,
        height: int | None,
        width: int | None,
    ) -> NetworkFrames:
        size, device = self.image_size, self.model.device
        if isinstance(video, Tensor):
            if video.ndim != 4 or video.shape[1:] != (3, size, size) or not video.is_floating_point():
                raise ConfigError(f"frames are {tuple(video.shape)} {video.dtype}, expected float [T, 3, {size}, {size}]")
            held = video.float() if offload else video.float().to(device)
            return TensorFrames(held, height or size, width or size, device)
        if isinstance(video, Sequence) and not isinstance(video, str | bytes):
            return DecodedFrames(ArrayFrames(video), size, engine.prepare)
        return DecodedFrames(open_video(str(video), exif_orientation=False), size, engine.prepare)

    # ------------------------------------------------------------------------------------------------------- prompts

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> Triple:
        """Clicks and/or a box on an object; returns the frame's masks. Pixels of the video; 0..1 without ``normalize_coords``."""
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be provided together")
        if points is None and box is None:
            raise ValueError("at least one of points or box must be provided as input")
        if box is not None and not clear_old_points:
            raise ValueError("a box can only start a prompt: it needs clear_old_points=True and comes before any points")
        session = inference_state.session
        coordinates = (
            torch.zeros(0, 2) if points is None else torch.as_tensor(np.asarray(points), dtype=torch.float32).view(-1, 2)
        )
        kinds = torch.zeros(0) if labels is None else torch.as_tensor(np.asarray(labels)).view(-1)
        if len(coordinates) != len(kinds):
            raise ValueError(f"{len(coordinates)} points but {len(kinds)} labels")
        if not torch.isfinite(coordinates).all():
            raise ValueError(f"points hold NaN or infinity: {coordinates.tolist()}")
        if box is not None:
            corners = torch.as_tensor(np.asarray(box), dtype=torch.float32).view(2, 2)
            coordinates = torch.cat((corners, coordinates))
            kinds = torch.cat((torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), kinds))
        if normalize_coords:
            coordinates = coordinates / torch.tensor([session.frames.width, session.frames.height], dtype=torch.float32)
        xy, marks = (coordinates * self.image_size).numpy(), kinds.int().numpy()
        result = session.add_points(frame_idx, obj_id, xy, marks, keep_old=not clear_old_points)
        return _triple(inference_state, result)

    def add_new_points(self, *args: Any, **kwargs: Any) -> Triple:
        """Deprecated name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: Any) -> Triple:
        """A mask ``[H, W]`` of any size as an object's mask on the frame."""
        mask = mask.float() if isinstance(mask, Tensor) else torch.as_tensor(np.asarray(mask), dtype=torch.bool).float()
        assert mask.ndim == 2, f"mask has {mask.ndim} dimensions, expected 2"
        prepared = mask_prompt(mask[None], self.image_size)
        return _triple(inference_state, inference_state.session.add_masks(frame_idx, [obj_id], prepared))

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, need_output: bool = True
    ) -> Triple | None:
        """Takes back an object's prompts on a frame. As in the reference, an unknown object becomes a known one."""
        inference_state.session.objects.setdefault(obj_id, TrackedObject(obj_id))
        result = inference_state.session.clear_prompts(frame_idx, obj_id)
        return _triple(inference_state, result) if need_output else None

    def remove_object(
        self, inference_state: InferenceState, obj_id: int, strict: bool = False, need_output: bool = True
    ) -> tuple[list[int], list[tuple[int, Tensor]]]:
        """Forgets an object; returns the ids left and the new masks of the frames where it had prompts."""
        if obj_id not in inference_state.session.objects:
            if strict:
                raise RuntimeError(f"cannot remove object {obj_id}: known objects are {inference_state['obj_ids']}")
            return inference_state["obj_ids"], []
        results = inference_state.session.remove_object(obj_id)
        inference_state.refresh()
        updated = [(result.frame_index, _logits(result)) for result in results] if need_output else []
        return inference_state["obj_ids"], updated

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forgets all objects and results; the video stays open."""
        inference_state.session.reset()
        inference_state.refresh()

    # --------------------------------------------------------------------------------------------------- propagation

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Encodes what the prompts said; `propagate_in_video` does it too."""
        session = inference_state.session
        if not session.objects:
            raise RuntimeError("no points or masks have been given for any object; add them first")
        session.settle()

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Triple]:
        """Yields (frame, object ids, masks) along the video, ``max_frame_num_to_track + 1`` frames at most."""
        self.propagate_in_video_preflight(inference_state)
        try:
            for result in inference_state.session.propagate(start_frame_idx, max_frame_num_to_track, reverse=reverse):
                yield _triple(inference_state, result)
        except ConfigError as error:
            raise RuntimeError(str(error)) from error


def _logits(result: FrameResult) -> Tensor:
    return result.video_logits()[:, None]


def _triple(state: InferenceState, result: FrameResult) -> Triple:
    state.refresh()
    return result.frame_index, state["obj_ids"], _logits(result)
