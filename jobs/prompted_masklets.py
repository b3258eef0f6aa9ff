"""Prompted masklets as a Ray job: takes the arguments of `sam2-pipeline run`, of which --prompts is needed.

    ray job submit --working-dir . -- python jobs/prompted_masklets.py s3://bucket/videos s3://bucket/out \
        --prompts s3://bucket/prompts.parquet
"""

import sys
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "prompted_masklets.yaml"

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # the working directory that was submitted comes first
    from sam2_pipeline.cli import main

    arguments = sys.argv[1:]
    if not any(argument.split("=")[0] in ("--prompts", "-h", "--help") for argument in arguments):
        print("prompted_masklets.py: --prompts FILE is missing", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(["run", "--ray", "auto", "--config", str(CONFIG), *arguments]))
