"""By hand: `python -m tests.simulation --seeds 10000`; one world again: `python -m tests.simulation --seed 7`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import LINES_SHOWN, Report, World

HASH_SEED = "0"
"""Sets of strings are walked in an order that depends on this; the same world needs the same order."""


def simulate(seed: int) -> Report:
    report = World(seed).run()
    if not report.problem:
        report.lines.clear()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this world alone, with all that happens in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worlds side by side")
    options = parser.parse_args()
    if options.seed is not None:
        return show(World(options.seed).run())
    return simulate_all(range(options.first, options.first + options.seeds), options.jobs)


def show(report: Report) -> int:
    print("\n".join(report.lines))
    print(f"seed {report.seed}, digest {report.digest}: {report.problem or 'everything holds'}")
    return 1 if report.problem else 0


def simulate_all(seeds: range, jobs: int) -> int:
    started, reports = time.monotonic(), []
    with ProcessPoolExecutor(jobs) as pool:
        for report in pool.map(simulate, seeds, chunksize=8):
            reports.append(report)
            if report.problem:
                print(*report.lines[-LINES_SHOWN:], sep="\n")
                print(f"\nseed {report.seed} fails: {report.problem}")
                print(f"the same again: python -m tests.simulation --seed {report.seed}")
                pool.shutdown(cancel_futures=True)
                return 1
    print(
        f"{len(reports)} worlds in {time.monotonic() - started:.0f} s: {sum(r.runs for r in reports)} runs, "
        f"{sum(r.attempts for r in reports)} attempts, {sum(r.commits for r in reports)} commits, "
        f"{sum(r.crashes for r in reports)} lives of processes ended; everything holds"
    )
    return 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": HASH_SEED},
        )
    sys.exit(main())
