"""Being here puts this folder on the import path: tests import ``golden.goldens`` and their other helpers from it."""
