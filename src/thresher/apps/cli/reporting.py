"""`thresher report` and `thresher watch`: run folders as one page, finished or live."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from thresher.apps.cli.reading.flags import Json, Quiet

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="run folders, or folders of runs such as a sweep or a demo")
]


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the page")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write every plot there, too, for papers")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="of these plots: svg, pdf or png")] = "svg",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one page about runs: it opens from disk, fetches nothing, and can be mailed.

    Example: thresher report runs/lats95 runs/gmp95 --out report.html
    """
    from thresher.apps.report import run_folders, write_report

    folders = run_folders(runs)
    page = write_report(folders, out)
    written = []
    if figures is not None:
        from thresher.plots import save_all

        written = save_all(folders, figures, form)
    if as_json:
        record = {"page": str(page), "bytes": page.stat().st_size, "runs": [str(folder) for folder in folders]}
        typer.echo(json.dumps({**record, "figures": [str(path) for path in written]}))
    elif not quiet:
        typer.echo(f"report page: {page}, {len(folders)} run{'s' * (len(folders) != 1)}, {page.stat().st_size:,} bytes")
        if written:
            typer.echo(f"plots: {len(written)} files in {figures}")


def watch(
    runs: Runs,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 0,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="open the page in a browser")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show the page of a run while it trains, to this machine only; stop with Ctrl-C.

    Example: thresher watch runs/lats95
    """
    from thresher.apps.report import Live

    with Live(runs, port) as server:
        if as_json:
            typer.echo(json.dumps({"url": server.url}))
        elif not quiet:
            typer.echo(f"{server.url}  (this machine only; stop with Ctrl-C)")
        if browser:
            webbrowser.open(server.url)
        server.serve_forever(poll_interval=0.2)
