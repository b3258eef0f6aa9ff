"""How well masklets agree with true ones: J, F, and recall, by the conventions of the SA-V and DAVIS evaluators.

`open_masks` reads either side, `evaluate` compares two of them, `measures` has the numbers of a single mask.
"""
