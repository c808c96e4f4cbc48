"""A real browser without a window, where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pytest

__all__ = ["ask", "needs_browser"]

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

needs_browser = pytest.mark.skipif(_BROWSER is None, reason="no Chromium is installed to look at the page with")

_ANSWER = re.compile(r'<output id="answer">(.*?)</output>', re.DOTALL)


def ask(page: Path, question: str, scheme: Literal["light", "dark"] = "light") -> Any:
    """Open a page, run JavaScript in it, and return what that returns.

    Args:
        page: The page.
        question: The body of a function that returns something JSON can hold.
        scheme: The colour scheme that the reader prefers.
    """
    script = f"""<output id="answer"></output><script>
const noted = [];
window.addEventListener("error", (event) => noted.push(event.message));
let answer;
try {{ answer = (() => {{ {question} }})(); }} catch (error) {{ noted.push(String(error)); }}
document.getElementById("answer").textContent = encodeURIComponent(JSON.stringify({{ answer, noted }}));
</script></body>"""
    asked = page.with_suffix(".asked.html")
    asked.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            str(_BROWSER),
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={1 if scheme == 'light' else 0}",
            *("--window-size=1200,900", "--virtual-time-budget=2000", "--dump-dom", asked.as_uri()),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found = _ANSWER.search(done.stdout)
    assert found is not None, done.stdout[-2000:]
    document = json.loads(unquote(found[1]))
    assert document["noted"] == []
    return document.get("answer")
