"""Bar charts as plain SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABEL_WIDTH, ROW, GAP = 760, 170, 14, 12
#: First come, first served; fair sharing.
COLOURS, NAMES = ("#94a3b8", "#2563eb"), ("first come, first served", "fair sharing")
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" '
    'role="img" aria-label="{t}">'
)

#: A panel: its title, its unit, and rows of a label and a bar for both ways: the length of its
#: dark part, and in all.
Panel = tuple[str, str, Sequence[tuple[str, tuple[tuple[float, float], tuple[float, float]]]]]


def draw_bars(title: str, panels: Sequence[Panel]) -> str:
    """An SVG with a panel of paired bars for each entry; every panel has a scale of its own."""
    lines: list[str] = []
    y = 62
    for name, unit, rows in panels:
        y += 10
        lines.append(f'<text x="20" y="{y}" font-weight="600">{escape(name)}</text>')
        y += GAP
        scale = (WIDTH - LABEL_WIDTH - 110) / (
            max(whole for _, bars in rows for _, whole in bars) or 1
        )
        for label, bars in rows:
            lines.append(
                f'<text x="{LABEL_WIDTH - 8}" y="{y + ROW}" text-anchor="end">{escape(label)}</text>'
            )
            for (part, whole), colour in zip(bars, COLOURS, strict=True):
                for length, opacity in ((whole, 0.5), (part, 1)):
                    lines.append(
                        f'<rect x="{LABEL_WIDTH}" y="{y}" width="{max(scale * length, 1):.1f}" '
                        f'height="{ROW - 3}" fill="{colour}" opacity="{opacity}"/>'
                    )
                numbers = dict.fromkeys(
                    f"{each:.2f}" if unit == "" else f"{each:.0f}" for each in (part, whole)
                )
                text = f"{' / '.join(numbers)} {unit}".strip()
                x = LABEL_WIDTH + scale * whole + 6
                lines.append(f'<text x="{x:.1f}" y="{y + ROW - 4}" font-size="11">{text}</text>')
                y += ROW
            y += 5
        y += GAP
    legend = [
        f'<rect x="{20 + 190 * each}" y="34" width="12" height="12" fill="{COLOURS[each]}"/>'
        f'<text x="{38 + 190 * each}" y="44">{NAMES[each]}</text>'
        for each in range(2)
    ]
    head = SVG.format(w=WIDTH, h=y, t=escape(title, quote=True))
    frame = f'<rect width="{WIDTH}" height="{y}" rx="8" fill="#ffffff"/>'
    heading = f'<text x="20" y="24" font-size="15" font-weight="600">{escape(title)}</text>'
    body = '<g font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">'
    return "\n".join([head, frame, body, heading, *legend, *lines, "</g>", "</svg>"]) + "\n"
