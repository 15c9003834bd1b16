"""The check's own modules are no test modules: they are run as one script, beside which they are imported."""

import sys
from pathlib import Path

collect_ignore_glob = ["verify*.py"]
sys.path.append(str(Path(__file__).parent))
