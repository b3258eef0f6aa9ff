"""Propagation: an annotated video's objects are tracked through all of its frames, in a thread of its own, while people go on."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from sam2_pipeline.errors import PipelineError
from sam2_pipeline.io.video import Video
from sam2_pipeline.serve.model import Desk
from sam2_pipeline.serve.session import Session, Track

State = Literal["running", "done", "failed", "cancelled"]
log = logging.getLogger("sam2_pipeline.serve")


@dataclass
class Propagation:
    """One pass over a video for those objects whose masks are not those of their prompts; the others are left alone.

    Masks are shown from frame to frame, and count when the pass is whole.
    """

    session: Session
    video: Video
    desk: Desk
    state: State = "running"
    message: str = ""
    _seen: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        with self.session.lock:
            stale = self.session.stale()
            prompts = {number: self.session.prompts_of(number) for number in stale}
            tracks = {number: Track(self.session.digest(number)) for number in stale}
        self._thread = threading.Thread(target=self._run, args=(prompts, tracks), name="propagation", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ends it after the frame at hand; what it found so far is dropped."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def progress(self) -> dict[str, Any]:
        total = self.video.num_frames
        done = total if self.state == "done" else len(self._seen)
        return {"state": self.state, "done": done, "total": total, "message": self.message}

    def _run(self, prompts: dict[int, list[Any]], tracks: dict[int, Track]) -> None:
        before: dict[int, Track] = {}
        try:
            if prompts:
                self._walk([prompt for some in prompts.values() for prompt in some], tracks, before)
            with self.session.lock:
                if self._stop.is_set():
                    self._restore(tracks, before)
                    self.state = "cancelled"
                    return
                for track in tracks.values():
                    track.whole = True
                self.state = "done"
        except Exception as error:
            if not isinstance(error, PipelineError):
                log.error("propagation of %s failed", self.session.video_id, exc_info=error)
            with self.session.lock:
                self._restore(tracks, before)
                self.message = str(error) or repr(error)
                self.state = "failed"

    def _walk(self, prompts: list[Any], tracks: dict[int, Track], before: dict[int, Track]) -> None:
        with self.desk.model(urgent=False) as model:
            frames = iter(model.propagate(self.video, prompts))
        while not self._stop.is_set():
            with self.desk.model(urgent=False):
                frame = next(frames, None)
            if frame is None:
                return
            with self.session.lock:
                for number, mask in frame.masks.items():
                    track = tracks[number]
                    if not track.frames:
                        before |= {number: self.session.tracks[number]} if number in self.session.tracks else {}
                        self.session.tracks[number] = track
                    track.frames[frame.frame_index] = mask
            self._seen.add(frame.frame_index)

    def _restore(self, tracks: dict[int, Track], before: dict[int, Track]) -> None:
        """Half a track would be taken for one whose object is gone; the earlier one is at least whole."""
        for number, track in tracks.items():
            if self.session.tracks.get(number) is track:
                del self.session.tracks[number]
        self.session.tracks |= before
