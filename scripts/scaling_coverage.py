"""Tests the coverage of the 95% intervals of scaling-law fits: draws losses from a known law and counts.

python scripts/scaling_coverage.py [--simulations 200] [--seeds 3] [--noise 0.001]
"""

import argparse

import _repository  # noqa: F401  (paper/)
import numpy as np

from paper.scaling_law import PARAMETERS, PowerLaw, fit

LAW = PowerLaw(amplitude=30.0, exponent=0.4, floor=0.5)
BUDGETS = (50_000, 100_000, 200_000, 300_000, 400_000)  # the paper's (table 7)


def main() -> None:
    """Print the share of simulations whose interval holds the true value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each budget")
    parser.add_argument("--noise", type=float, default=0.001, help="standard deviation of the loss")
    parser.add_argument("--draws", type=int, default=400, help="of the bootstrap")
    args = parser.parse_args()
    budgets = np.repeat(np.array(BUDGETS, dtype=float), args.seeds)
    for objective in ("least_squares", "huber"):
        held = dict.fromkeys((*PARAMETERS, "twice the largest budget"), 0)
        for seed in range(args.simulations):
            noise = np.random.default_rng([seed, 1]).standard_normal(len(budgets)) * args.noise
            fitted = fit(budgets, LAW(budgets) + noise, objective, args.draws, seed)  # type: ignore[arg-type]
            for name in PARAMETERS:
                low, high = fitted.interval(name)
                held[name] += low <= getattr(LAW, name) <= high
            _, (low, high) = fitted.predict(2 * budgets.max())
            held["twice the largest budget"] += low <= LAW(2 * budgets.max()) <= high
        shares = ", ".join(f"{name} {count / args.simulations:.1%}" for name, count in held.items())
        print(f"{objective}, {len(budgets)} runs: {shares}", flush=True)


if __name__ == "__main__":
    main()
