"""How fast chips are screened, decided on and designed.

python benchmarks/silicon.py

Three figures, each with its bound: designs screened a second (best of three, at least 100,000), a decision on 4,096
samples (best of three, at most 2 s), and a whole ``silicon design`` with its fleet stage as a process (at most 180 s;
the first run on a machine also compiles the simulator).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infermix.catalog.load import catalog
from infermix.silicon.constants import constants
from infermix.silicon.decide import decide
from infermix.silicon.record import FAMILIES
from infermix.silicon.space import Money, Space, Work, designs_of, screened

EXAMPLES = Path(__file__).parents[1] / "examples" / "silicon"
DESIGNS_PER_S, DECISION_S, DESIGN_S = 100_000, 2.0, 180.0
SPACE = Space(
    node=["n5", "n3"], sram_mb=[32, 64, 128, 256, 384, 512, 768], tflops=[float(t * 100) for t in range(1, 25)],
    hbm=["hbm3e", "hbm4"], stacks=[2, 4, 6, 8], links=[8, 18, 36, 60], dies=[1, 2], spare_share=[0, 0.04, 0.08, 0.12],
)  # fmt: skip
MONEY = Money(
    gross_margin=0.5, system_usd_per_chip=6000, life_years=4, finance_rate=0.08, usd_per_kwh=0.08, load=0.5
)  # fmt: skip
WORKS = (
    Work(model="llama-3.3-70b", input_tokens=4000, output_tokens=500, tokens_per_s_user=30, ttft_s=2),
    Work(model="gpt-oss-120b", input_tokens=100_000, cached_tokens=96_000, output_tokens=450, tokens_per_s_user=150,
         ttft_s=2),
)  # fmt: skip


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Best wall time of ``times`` calls."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def screen() -> int:
    """Every combination of the space, screened; how many there are."""
    facts, designs = catalog(), designs_of(SPACE)
    works = [(work, facts.models[work.model]) for work in WORKS]
    families = {id_: facts.efficiencies[id_] for id_ in FAMILIES.values()}
    screened(SPACE, designs, works, MONEY, constants(), families)
    return len(designs)


def design() -> None:
    """The packaged example as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "infermix", "silicon", "design", str(EXAMPLES / "design-mix.toml")]
        subprocess.run([*command, "--json", f"{folder}/design.json"], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Print the figures; 1 when one is over its bound."""
    per_s = screen() / seconds(screen)
    decision_s = seconds(lambda: decide(EXAMPLES / "decide-n3.toml"))
    design_s = seconds(design, times=1)
    print(f"screen: {per_s:,.0f} designs/s, bound {DESIGNS_PER_S:,}")
    print(f"decide: {decision_s:.2f} s for 4,096 samples, bound {DECISION_S} s")
    print(f"design: {design_s:.1f} s with its fleet stage, bound {DESIGN_S:.0f} s")
    return int(per_s < DESIGNS_PER_S or decision_s > DECISION_S or design_s > DESIGN_S)


if __name__ == "__main__":
    sys.exit(main())
