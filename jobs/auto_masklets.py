"""Automatic masklets as a Ray job: takes the arguments of `sam2-pipeline run`, and joins the cluster that runs it.

ray job submit --working-dir . -- python jobs/auto_masklets.py s3://bucket/videos s3://bucket/masklets
"""

import sys
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "auto_masklets.yaml"

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # the working directory that was submitted comes first
    from sam2_pipeline.cli import main

    sys.exit(main(["run", "--ray", "auto", "--config", str(CONFIG), *sys.argv[1:]]))
