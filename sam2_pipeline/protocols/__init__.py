"""How good a model is: it is prompted with true masks, or with nothing, and what it tracks is scored by `evaluation`.

`clips` are videos with true masks, `prompting` turns these into clicks, boxes and masks, `prompted` and `interactive` play the
protocols on one video, `trial` on many; `result` has the figures. The protocols are those of the SAM 2 paper (section 6).
"""
