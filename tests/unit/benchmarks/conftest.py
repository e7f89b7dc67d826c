"""Benchmarks are programs in a folder of their own, which is no package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
