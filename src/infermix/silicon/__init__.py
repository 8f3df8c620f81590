"""CHIPS: what a chip costs, which chip to build, and whether to build at all.

Equations are pure functions over arrays (designs x samples) and carry the numbers of the page
``docs/design/silicon.md``. Every constant is a figure with a range, a source, a date and a confidence
in ``silicon/data``; none stands in the code.
"""
