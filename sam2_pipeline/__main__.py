import sys

from sam2_pipeline.cli import main

sys.exit(main())
