"""Tables for notebooks: plain HTML in which every text is escaped and nothing runs or is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "padding:.2em .7em;text-align:"


def html_table(rows: Sequence[Sequence[str]], *, title: str = "", lines: Sequence[str] = ()) -> str:
    """The rows (the first is the head) as an HTML table under `title`, with `lines` of text below.

    >>> "<b>" in html_table([("name",), ("<b>",)])
    False
    """
    head, *body = rows
    parts = [f"<p><strong>{escape(title)}</strong></p>"] if title else []
    parts.append('<table style="font-variant-numeric:tabular-nums"><thead><tr>')
    parts += [f'<th style="{_CELL}{_side(place)}">{escape(cell)}</th>' for place, cell in enumerate(head)]
    parts.append("</tr></thead><tbody>")
    for row in body:
        cells = (f'<td style="{_CELL}{_side(place)}">{escape(cell)}</td>' for place, cell in enumerate(row))
        parts.append(f"<tr>{''.join(cells)}</tr>")
    parts.append("</tbody></table>")
    parts += [f"<p>{escape(line)}</p>" for line in lines if line]
    return "".join(parts)


def _side(place: int) -> str:
    return "right" if place else "left"
