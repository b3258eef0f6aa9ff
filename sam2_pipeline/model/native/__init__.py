"""What PyTorch has no fast kernel for on a CPU, in C: compiled where it is used, and tested against the plain form.

`read_maps.c` is the attention of a frame to remembered maps; `library.py` compiles and loads it; `reading.py` hands it tensors.
Without a C compiler the plain form in `memory_attention.py` does the work, with the same results.
"""
