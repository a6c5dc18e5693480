"""Methods x budgets x seeds as ordinary runs: planned, tuned, shared between workers, resumed, and put in one table."""

from thresher.apps.sweep.config import SweepConfig, read_sweep
from thresher.apps.sweep.crew import work_together
from thresher.apps.sweep.opening import is_sweep, open_sweep
from thresher.apps.sweep.plan import PlannedRun, planned_groups, planned_runs
from thresher.apps.sweep.sweep import Sweep
from thresher.apps.sweep.table import short_error, sweep_record, table_lines, write_table
from thresher.apps.sweep.worker import work

__all__ = [
    "PlannedRun",
    "Sweep",
    "SweepConfig",
    "is_sweep",
    "open_sweep",
    "planned_groups",
    "planned_runs",
    "read_sweep",
    "short_error",
    "sweep_record",
    "table_lines",
    "work",
    "work_together",
    "write_table",
]
