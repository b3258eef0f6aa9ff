"""Being here puts this folder on the import path: tests import ``golden.goldens`` and their other helpers from it."""

import os

# One thread for every process of the tests: the golden numbers were made so, and threads that wait for each other on a busy
# machine are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers the lowest priority but one: on a machine that has other work they would hardly come to their turn.
os.environ.setdefault("RAY_worker_niceness", "0")
