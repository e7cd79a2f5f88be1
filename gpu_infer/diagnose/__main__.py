"""``python -m gpu_infer.diagnose > docs/errors.md``."""

import sys

from gpu_infer.diagnose.page import page

sys.stdout.write(page())
