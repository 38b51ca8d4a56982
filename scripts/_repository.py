"""Importing this puts the repository on the path: `paper/` lies beside the library and is not installed with it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
