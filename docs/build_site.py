"""Builds the documentation site from the pages of the repository: `make docs`.

The pages are copied to a folder with the same tree, so that links between them lead to the same places on GitHub and on
the site. The pages of the public modules are added, and the generator is run in strict mode.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

__all__ = ["MODULES", "broken_links", "build", "hosts_loaded_from", "stage"]

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
FILES = (
    *("*.md", "LICENSE", "docs/*.md", "examples/*.py"),
    *(
        "spec/*.md",
        "spec/*.py",
        "spec/*.json",
        "spec/vectors/README.md",
        "spec/vectors/*.json",
        "spec/vectors/*.py",
        "spec/vectors/valid/flat.ckptfmt",
    ),
    *("benchmarks/*.md", "benchmarks/*.py", "benchmarks/results/*"),
)
MODULES = ("ckptfmt", "ckptfmt.errors", "ckptfmt.torch", "ckptfmt.testing")
"""The public modules, each with a page made of its docstrings."""

_LINK = re.compile(r"""\b(?:src|href)="(?![a-z]+:|//|#)([^"#?]+)""", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*>", re.IGNORECASE)
_PASSIVE = re.compile(r"""\brel=["']?(?:canonical|alternate|next|prev)\b""", re.IGNORECASE)
_ADDRESS = re.compile(r"""\b(?:src|href|data|srcset)=["']?(?:https?:)?//([^/"'\s>]+)""", re.IGNORECASE)
_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?:https?:)?//([^/"')\s]+)""", re.IGNORECASE)


def stage(target: Path) -> None:
    """Copy the pages, and what they link to, to an empty folder `target`."""
    shutil.rmtree(target, ignore_errors=True)
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            copy = target / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    (target / "api").mkdir()
    for name in MODULES:
        (target / "api" / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")


def hosts_loaded_from(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each page or style sheet that loads something from another host, with the host."""
    for page in sorted(site.rglob("*.html")):
        for tag in _TAG.findall(page.read_text(encoding="utf-8")):
            if not _PASSIVE.search(tag):
                yield from ((page, host) for host in _ADDRESS.findall(tag))
    for sheet in (*site.rglob("*.html"), *site.rglob("*.css")):
        yield from ((sheet, host) for host in _STYLE.findall(sheet.read_text(encoding="utf-8")))


def broken_links(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each page with a link to a file that the site does not have; the generator checks links between pages."""
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its links are for a server
            continue
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / unquote(link)).exists():
                yield page, link


def build() -> int:
    """Build the site, and return an exit code: 0, or 1 if a link is broken or a page loads from another host."""
    stage(SOURCE)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        return 1
    problems = [f"{page}: {link} is not part of the site; add it to FILES" for page, link in broken_links(SITE)]
    problems += [f"{page}: loads from {host}; the site must not" for page, host in hosts_loaded_from(SITE)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"The site is in {SITE.relative_to(ROOT)}; open index.html there.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(build())
