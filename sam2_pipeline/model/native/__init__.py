"""What PyTorch has no fast kernel for, in C or Triton: compiled where it is used, and tested against the plain form.

On a CPU, `read_maps.c` is the attention of a frame to remembered maps; `library.py` compiles and loads it; `reading.py` hands it
tensors. On a GPU, in training, `row_kernels.py` does layer norms, sums of rows and rotations. Without a C compiler, or without
Triton, the plain forms in the model do the work, with the same results.
"""
