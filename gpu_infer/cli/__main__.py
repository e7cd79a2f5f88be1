"""``python -m gpu_infer.cli``, where the command itself is not on the path."""

import sys

from gpu_infer.cli import main

if __name__ == "__main__":
    sys.exit(main())
