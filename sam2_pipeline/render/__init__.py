"""Pictures and videos of masklets: `overlay` (masks, prompts and captions on a frame), `layout` (frames beside and below each
other), `video` (frames to mp4)."""
