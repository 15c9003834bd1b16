"""How long the checks of 10,000 rows with small pictures take on one core, before anything is computed from them.

Run: python tests/benchmarks/bench_row_checks.py
"""

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_builders.row_checks import Check, check_rows
from data_builders.row_schema import schema_of

ROWS, EDGE = 10_000, 64
FACTS = '{"rule_set": "chest_xray@1", "findings": {"nodule": {"polarity": "present", "side": "left", "boxes": [[%d,2,40,50]]}}}'  # noqa: E501
PROMPT = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Where is it?"}]}]


def row(number: int, drawn: np.random.Generator) -> dict[str, object]:
    """A prompt row with a picture of its own, and facts that some rows share."""
    buffer = io.BytesIO()
    Image.fromarray(drawn.integers(0, 255, (EDGE, EDGE), dtype=np.uint8)).save(buffer, format="PNG")
    return {
        "id": f"row{number}", "patient": f"p{number}", "task": "box", "target": "nodule", "rule_set": "chest_xray@1",
        "facts": FACTS % (number % 30), "images": [{"bytes": buffer.getvalue(), "path": None}], "prompt": PROMPT,
        "boxes": [[number % 30, 2, 40, 50]], "box_grid": 100, "image_size": [[EDGE, EDGE]], "answer": "left",
    }  # fmt: skip


def seconds(file: Path, check: Check) -> float:
    """Processor time of the checks of the whole file."""
    since = time.process_time()
    check_rows(file, check)
    return time.process_time() - since


if __name__ == "__main__":
    drawn = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        rows = [row(number, drawn) for number in range(ROWS)]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema_of("prompt")), file)
        for name, check in {"headers, pixels of 32": Check(("prompt",)), "--pixels": Check(pixels=None)}.items():
            took = seconds(file, check)
            print(f"{name:22} {took:6.2f} s for {ROWS:,} rows, {1e6 * took / ROWS:6.0f} microseconds a row")
