"""RUN/trail as data: what each network on the way costs and is worth, and how its weights are spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from thresher.errors import ThresherError

MOST_BYTES = 200_000_000
"""Networks of a trail that take more than this together are not opened for their layers."""
MOST_WEIGHTS = 50_000_000
BINS = 60


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """One tensor at one point: its zeros, the bytes it takes in a file, and counts of its other weights in equal parts
    of [-reach, reach]."""

    zeros: int
    bytes: int
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One point of a trail. accuracy: the estimate on all images, in percent. layers: by the tensor's name, {} when
    unknown."""

    step: int
    sparsity: float
    accuracy: float | None
    drop: float | None
    images: int | None
    bytes: int
    flops: float | None
    thresholds: Mapping[str, float | None]
    layers: Mapping[str, LayerState]


@dataclass(frozen=True, kw_only=True)
class Stops:
    """A trail by rising sparsity. reach: per tensor, the largest magnitude that its counts go to. dense_accuracy: in
    percent."""

    stops: tuple[Stop, ...]
    reach: Mapping[str, float]
    dense_accuracy: float | None
    notes: tuple[str, ...] = ()


def stops_of(folder: Path, reach: Mapping[str, float], most: int = 40) -> Stops | None:
    """What `folder`/trail holds, of at most `most` points; None when there is no readable point.

    Args:
        reach: largest magnitudes that are known from elsewhere; others are taken from the points.
    """
    place = folder / "trail"
    if not place.is_dir():
        return None
    from thresher.trail import Trail

    try:
        trail = Trail(place)
        points = sorted(trail.points, key=lambda point: (point.sparsity, point.step))
        notes = [f"trail: {problem}" for problem in trail.problems[:8]]
        dense = trail.dense_accuracy
    except (ThresherError, OSError) as error:
        return Stops(stops=(), reach={}, dense_accuracy=None, notes=(f"trail: {error}",))
    if not points and not notes:
        return None
    if len(points) > most:
        notes.append(f"trail: {most} of {len(points)} networks are shown")
        points = [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]
    found = tuple(
        Stop(
            step=point.step,
            sparsity=point.sparsity,
            accuracy=point.estimate,
            drop=point.drop,
            images=point.images,
            bytes=point.bytes,
            flops=point.flops,
            thresholds=point.thresholds,
            layers={},
        )
        for point in points
    )
    small = sum(point.stored for point in points) <= MOST_BYTES
    small = small and sum(point.entries for point in points) <= MOST_WEIGHTS
    if not small:
        notes.append("trail: too large to be opened here; its layers stay as they are at the end")
        return Stops(stops=found, reach={}, dense_accuracy=dense, notes=tuple(notes))
    try:
        # Points that share a step share a file; the stamp notices when a file was written anew.
        stamps = [_stamp(place, stop.step) for stop in found]
        known = dict(reach) or _reach_of(place, found[0], stamps[0])
        layers = [
            _layers(str(place), stop.step, stamp, tuple(stop.thresholds), tuple(sorted(known.items())))
            for stop, stamp in zip(found, stamps, strict=True)
        ]
    except (ThresherError, OSError, RuntimeError, ValueError) as error:
        notes.append(f"trail: the layers of its networks cannot be read ({str(error).splitlines()[0][:200]})")
        return Stops(stops=found, reach={}, dense_accuracy=dense, notes=tuple(notes))
    found = tuple(replace(stop, layers=layer) for stop, layer in zip(found, layers, strict=True))
    return Stops(stops=found, reach=known, dense_accuracy=dense, notes=tuple(notes))


def _stamp(place: Path, step: int) -> tuple[int, int]:
    from thresher.trail.files import file_name

    status = (place / file_name(step)).stat()
    return status.st_mtime_ns, status.st_size


def _reach_of(place: Path, stop: Stop, stamp: tuple[int, int]) -> dict[str, float]:
    from thresher.deploy.storage import load_state
    from thresher.trail.files import file_name

    state = load_state(place / file_name(stop.step), max_bytes=8 * MOST_WEIGHTS)[0]
    return {
        name: float(state[name].float().abs().max())
        for name in stop.thresholds
        if name in state and state[name].numel()
    }


@lru_cache(maxsize=256)
def _layers(
    place: str, step: int, stamp: tuple[int, int], names: tuple[str, ...], reach: tuple[tuple[str, float], ...]
) -> Mapping[str, LayerState]:
    """Kept by the file's stamp: a page that is made again and again while the run goes on reads each point once."""
    import torch

    from thresher.deploy.storage import encoded_bytes, load_state
    from thresher.trail.files import file_name

    state = load_state(Path(place) / file_name(step), max_bytes=8 * MOST_WEIGHTS)[0]
    ends = dict(reach)
    found = {}
    for name in names:
        if name not in state or not state[name].is_floating_point():
            continue
        weight = state[name].float()
        kept = weight[weight != 0]
        end = ends.get(name, 0.0)
        counted = torch.histc(kept, BINS, -end, end).tolist() if end > 0 else [0] * BINS
        found[name] = LayerState(
            zeros=weight.numel() - kept.numel(), bytes=encoded_bytes(weight), counts=tuple(int(n) for n in counted)
        )
    return found
