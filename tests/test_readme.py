"""The README shows what the examples really are."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_two_loops_are_those_of_the_examples() -> None:
    table = (ROOT / "README.md").read_text().partition("<table>")[2].partition("</table>")[0]
    blocks = re.findall(r"```python\n(.*?)```", table, re.DOTALL)
    for block, example in zip(blocks, ("plain.py", "train.py"), strict=True):
        source = (ROOT / "examples" / example).read_text().splitlines()
        for line in filter(None, block.splitlines()):
            assert line in source or line.strip() == "...", f"{example} has no line {line!r}"


def test_its_links_lead_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "spec/rationale.md", "spec/threat-model.md", "spec/ckptfmt-1.md"):
        path = ROOT / document
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{document} leads to {target}"
