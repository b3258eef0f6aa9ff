"""The SAM 2 network: pure functions over tensors. Start with `sam2.py`."""
