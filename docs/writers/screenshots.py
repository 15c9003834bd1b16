"""Pictures of what ``make demo`` left, for the README: ``make screenshots``. Chromium draws them.

``CHROMIUM`` names its command. Left out: pages whose pictures are files beside them.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from docs.writers.evidence import ROOT

SHOTS = {
    "gallery": ("data/phantom_chest/gallery.html", "preference", (1340, 800)),
    "report": ("runs/phantom_chest/report.html", "Pictures", (1340, 790)),
}
"""By picture: the page, the heading that it begins with, the size of the window."""
WIDTH = 1000
"""Of a picture, in pixels."""
LARGEST = 150_000
"""Bytes of a picture, at most."""


def screenshot(page: Path, heading: str, window: tuple[int, int], chromium: str) -> Image.Image:
    """A page as Chromium shows it, from a heading on."""
    with tempfile.TemporaryDirectory() as folder:
        file, copy = Path(folder) / "page.png", Path(folder) / "page.html"
        copy.write_text(from_heading(page.read_text(encoding="utf-8"), heading), encoding="utf-8")
        options = ["--headless", "--disable-gpu", "--hide-scrollbars", f"--window-size={window[0]},{window[1]}"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [chromium, *options, f"--user-data-dir={folder}/profile", f"--screenshot={file}", copy.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
    return picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS)


def from_heading(page: str, heading: str) -> str:
    """The page without what stands before a heading. Its own policy forbids scripts, which could scroll to it.

    >>> from_heading("<head></head><body><main><p>a</p><h2>b</h2></main></body>", "b")
    '<head></head><body><main><h2>b</h2></main></body>'
    """
    start = page.index(f"<h2>{heading}")
    opened = re.findall(r"<(?:body|main)[^>]*>", page[:start])
    return page[: page.index(opened[0])] + "".join(opened) + page[start:]


def small_jpeg(picture: Image.Image, largest: int = LARGEST) -> bytes:
    """The picture as a JPEG of at most so many bytes, in the best quality that leaves it.

    Raises: SystemExit where none does.
    """
    for quality in range(92, 50, -4):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= largest:
            return stream.getvalue()
    sys.exit(f"A picture of {picture.width} x {picture.height} does not fit into {largest} bytes. Take a smaller one.")


def main() -> None:
    """Writes every picture into ``docs/images``."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        sys.exit("No Chromium: install it, or name its command in CHROMIUM.")
    for name, (page, heading, window) in SHOTS.items():
        if not (ROOT / page).is_file():
            sys.exit(f"{page}: no such file. Run `make demo` first.")
        picture = screenshot(ROOT / page, heading, window, chromium)
        (ROOT / f"docs/images/{name}.jpg").write_bytes(small_jpeg(picture))


if __name__ == "__main__":
    main()
