"""Frames to masks and masklets: who walks through the frames, and owns what is remembered."""
