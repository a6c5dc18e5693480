"""D = λ·Ση/(1 − μ): what L1 penalty a final soft threshold stands for, and back."""

from __future__ import annotations

from thresher.errors import InputError


def threshold_of_penalty(penalty: float, rate_sum: float, *, momentum: float = 0.0) -> float:
    """D = λ·Σ η/(1 − μ), the final soft threshold that a constant L1 penalty λ leads to.

    For a cosine without warm-up Σ η = η_max·N/2. Holds for SGD (PyTorch momentum, no dampening); Adam has no scalar λ.

    Shapes: numbers. Units: λ in loss per weight unit, Σ η the sum of the learning rates of all steps, D in weight
    units. Gradient: none. Errors: InputError unless λ ≥ 0, Σ η > 0, 0 ≤ μ < 1, all finite.
    Source: derived, the proximal gradient reading of the scheduled soft threshold.

    >>> round(threshold_of_penalty(1.951563749e-7, 0.256 * 500400 / 2, momentum=0.875), 9)
    0.1
    """
    _check("penalty", penalty, rate_sum, momentum)
    return penalty * rate_sum / (1 - momentum)


def penalty_of_threshold(threshold: float, rate_sum: float, *, momentum: float = 0.0) -> float:
    """λ = (1 − μ)·D/Σ η, the constant L1 penalty that a final soft threshold D stands for.

    Shapes: numbers. Units: as in `threshold_of_penalty`. Gradient: none.
    Errors: InputError unless D ≥ 0, Σ η > 0, 0 ≤ μ < 1, all finite.
    Source: derived, the proximal gradient reading of the scheduled soft threshold.

    >>> f"{penalty_of_threshold(0.1, 0.256 * 500400 / 2, momentum=0.875):.6e}"
    '1.951564e-07'
    """
    _check("threshold", threshold, rate_sum, momentum)
    return (1 - momentum) * threshold / rate_sum


def _check(field: str, value: float, rate_sum: float, momentum: float) -> None:
    if not (0 <= value < float("inf") and 0 < rate_sum < float("inf") and 0 <= momentum < 1):
        raise InputError(
            f"{field}={value!r}, rate_sum={rate_sum!r}, momentum={momentum!r}",
            f"{field} >= 0, rate_sum > 0, 0 <= momentum < 1, all finite",
            "sum the learning rates of all optimizer steps; momentum is that of SGD",
        )
