"""How the residual of i-SpaSP falls with the units kept, against the slope 1 - 2/p that the theory gives.

Hidden units with sizes i^(-1/p) (rows of Gaussian noise, scaled), random outgoing weights, 100 and 200 units,
p from 0.3 to 0.9. Writes benchmarks/results/recovery_decay.json. Run: python benchmarks/recovery_decay.py
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from thresher.recovery import Problem, fit_compressibility, residual_curve, slope_of

UNITS = (100, 200)
EXPONENTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SAMPLES, OUTPUTS, SEEDS = 1000, 400, 5


def problem_of(units: int, p: float, seed: int) -> Problem:
    """H with row sizes i^(-1/p) exactly, and W1 with columns of unit length on average."""
    noise = torch.Generator().manual_seed(seed)
    hidden = torch.randn(units, SAMPLES, generator=noise, dtype=torch.float64)
    hidden /= hidden.norm(dim=1, keepdim=True)
    hidden *= (torch.arange(1, units + 1, dtype=torch.float64) ** (-1 / p))[:, None]
    weight = torch.randn(OUTPUTS, units, generator=noise, dtype=torch.float64) / OUTPUTS**0.5
    return Problem.of(hidden @ hidden.T, weight)


def row_of(units: int, p: float) -> dict[str, Any]:
    """Slope of log ‖V‖² over log s for s from units/20 to units/4: past the first few units, before the end is felt."""
    sizes = sorted({round(units * (0.05 * 5 ** (step / 12))) for step in range(13)})
    slopes, fitted = [], []
    for seed in range(SEEDS):
        problem = problem_of(units, p, seed)
        slopes.append(slope_of(residual_curve(problem, sizes)))
        fitted.append(fit_compressibility(problem.sizes).p)
    predicted, measured = 1 - 2 / p, sum(slopes) / SEEDS
    return {
        "units": units,
        "p": p,
        "p_fitted": sum(fitted) / SEEDS,
        "sizes": sizes,
        "predicted": predicted,
        "measured": measured,
        "slopes": slopes,
        "off": abs(measured - predicted) / abs(predicted),
    }


def main() -> None:
    """Run all and write the file."""
    torch.set_num_threads(1)
    rows = [row_of(units, p) for units in UNITS for p in EXPONENTS]
    for row in rows:
        print(
            f"{row['units']:4d} p={row['p']:.1f} predicted {row['predicted']:6.2f} measured {row['measured']:6.2f} "
            f"off {row['off']:.1%}"
        )
    record = {
        "version": 1,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "samples": SAMPLES,
        "outputs": OUTPUTS,
        "seeds": SEEDS,
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "recovery_decay.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
