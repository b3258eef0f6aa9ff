"""Noticing that a file has been cut off: FFmpeg ends it like any other."""

import os

from av.container import InputContainer
from av.video.stream import VideoStream

from sam2_pipeline.errors import VideoError

# Formats whose header states the duration, so that an end far before it means that the file has been cut.
STATED_DURATION = frozenset(["matroska,webm", "flv", "avi"])
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # element ids of RFC 8794 and RFC 9559 (Matroska)


def check_complete(container: InputContainer, stream: VideoStream, url: str, packets: int, end_s: float) -> None:
    """Compare what was read, ``packets`` of the stream up to time ``end_s``, with what the header or the index promised.

    Raises:
        VideoError: the file ends before.
    """
    name = container.format.name
    if name.startswith("mov,"):
        expected = len(stream.index_entries)
        if packets < expected:
            raise VideoError(f"{url}: truncated: {packets} frames found, {expected} expected by the file's index")
    if name in STATED_DURATION and container.duration:
        stated_s = container.duration / 1e6
        if end_s < stated_s * 0.99 - 0.5:
            about = f" (about {stated_s * float(stream.average_rate):.0f})" if stream.average_rate else ""
            raise VideoError(
                f"{url}: truncated: {packets} frames found up to {end_s:.2f} s, expected frames{about} up to {stated_s:.2f} s"
            )
    found, stated = container.size, _stated_bytes(container.name.removeprefix("file:"), name)
    if stated is not None and 0 < found < stated:
        raise VideoError(f"{url}: truncated: {found} bytes found, {stated} expected by the file's header")


def _stated_bytes(path: str, format_name: str) -> int | None:
    """Where the header of a local Matroska or AVI file says that it ends; None where it does not say."""
    if format_name not in ("matroska,webm", "avi") or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        start = file.read(64)
    if format_name == "avi":
        size = int.from_bytes(start[4:8], "little")
        return 8 + size if start[:4] == b"RIFF" and size else None
    if not start.startswith(EBML):
        return None
    header_bytes, at = _vint(start, len(EBML))
    if header_bytes is None or not start.startswith(SEGMENT, at + header_bytes):
        return None
    segment_bytes, at = _vint(start, at + header_bytes + len(SEGMENT))
    return None if segment_bytes is None else at + segment_bytes


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML number (None: unknown, all its bits are ones) and where it ends. Leading zero bits tell how many bytes follow."""
    if at >= len(data):
        return None, at
    length = 9 - data[at].bit_length()
    bits = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if bits == (1 << 7 * length) - 1 else bits), at + length
