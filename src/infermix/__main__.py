"""``python -m infermix`` is the command ``infermix``."""

from __future__ import annotations

from infermix.cli.main import main

if __name__ == "__main__":
    main()
