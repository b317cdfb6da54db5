"""What these tests share with the scripts beside them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # a script finds tree_cases in its own folder, a test does not
