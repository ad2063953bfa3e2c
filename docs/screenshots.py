"""`python docs/screenshots.py [REPORT]`: docs/report.png and docs/report-phone.png, the page as a browser shows it.

Takes the report of the last `cfx demo` by default. Needs Chromium or Chrome.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"report.png": (1280, 1720), "report-phone.png": (390, 2600)}
"""What is written, and the size of its window."""
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def browser() -> str | None:
    """A browser that can take pictures, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def screenshot(program: str, page: Path, path: Path, size: tuple[int, int]) -> None:
    """Write a picture of the top of a page."""
    width, height = size
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        window = [f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={path}"]
        subprocess.run([program, *QUIET, *window, page.resolve().as_uri()], check=True, capture_output=True)
    Image.open(path).convert("RGB").save(path, optimize=True)


def main() -> None:
    """Take all of them."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs/demo/report.html"
    program = browser()
    if program is None or not page.exists():
        sys.exit(f"expected {page} (run `cfx demo` first) and one of {', '.join(BROWSERS)}")
    for name, size in SIZES.items():
        screenshot(program, page, ROOT / "docs" / name, size)
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
