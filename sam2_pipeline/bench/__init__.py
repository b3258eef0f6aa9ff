"""How fast this machine is, side by side with other implementations of SAM 2: ``sam2-pipeline bench``."""
