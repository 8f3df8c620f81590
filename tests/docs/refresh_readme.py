"""Run every command whose output README.md shows, and put what it prints in place of what stands there.

    python tests/docs/refresh_readme.py [WORD]     (only commands that contain WORD)

Blocks that end in a line ``...`` are trimmed again: to as many paragraphs, or lines where there is only one.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
NOT_HERE = ("--replay decisions.jsonl",)
"""Commands on files that a live gateway wrote."""
SHOWN = re.compile(r"^```text\n\$ ([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STUDY = re.compile(r"^```toml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MADE = (
    "install: virtual environment in .venv",
    "install: infermix and what it needs",
    "plan: examples/coding-lane.toml",
)
"""What ``make plan`` prints before the plan."""


def printed(command: str, readme: str) -> list[str]:
    """Lines that a command of the README prints to stdout; ``make plan`` without installing anew."""
    making = command == "make plan"
    words = ("infermix plan examples/coding-lane.toml" if making else command).split()
    with tempfile.TemporaryDirectory() as folder:
        study = STUDY.search(readme)
        (Path(folder) / "my-study.toml").write_text(study[1] if study else "")
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        run = subprocess.run(
            [sys.executable, "-m", "infermix", *words[1:]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            check=True,
            capture_output=True,
            text=True,
        )
    lines = [line.rstrip() for line in run.stdout.rstrip().splitlines()]
    return [*MADE, *lines] if making else lines


def trimmed(lines: list[str], like: list[str]) -> list[str]:
    """The lines, cut where those shown before were."""
    if like[-1] != "...":
        return lines
    paragraphs = "\n".join(lines).split("\n\n")
    if len(paragraphs) == 1:
        return [*lines[: len(like) - 1], "..."]
    return [*"\n\n".join(paragraphs[: "\n".join(like).count("\n\n") + 1]).splitlines(), "..."]


def refreshed(readme: str, word: str = "") -> str:
    """The README with outputs as they are now."""

    def block(found: re.Match[str]) -> str:
        if word not in found[1] or any(file in found[1] for file in NOT_HERE):
            return found[0]
        lines = trimmed(printed(found[1], readme), found[2].splitlines())
        return "\n".join([f"```text\n$ {found[1]}", *lines, "```"])

    return SHOWN.sub(block, readme)


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8"), *sys.argv[1:2]), encoding="utf-8")
