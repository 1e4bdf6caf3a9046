#!/usr/bin/env python3
"""Makes comparison.svg, the bar chart of the README, from figures.tsv beside it.

    python3 benches/chart.py

Each row of figures.tsv is one panel with a scale of its own, each column after the second one bar. The same figures
give the same bytes. The background is transparent, and the colours have enough contrast on white and on black.
"""
import pathlib
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = 2
PANEL_WIDTH = 400
BAR_HEIGHT = 14
BAR_STEP = 20
TITLE_HEIGHT = 26
PANEL_GAP = 18
MARGIN = 12
NAME_WIDTH = 62
NUMBER_WIDTH = 48
OURS, OTHERS, TEXT = "#2f81f7", "#8b949e", "#6e7781"


def read(path):
    """Returns the names of the tools and the rows as (workload, unit, figures as written)."""
    lines = [line.rstrip("\n") for line in path.open(encoding="utf-8") if line.strip() and not line.startswith("#")]
    tools = lines[0].split("\t")[2:]
    rows = []
    for line in lines[1:]:
        workload, unit, *figures = line.split("\t")
        if len(figures) != len(tools):
            raise SystemExit(f"{path}: {len(figures)} figures for {len(tools)} tools: {line}")
        rows.append((workload, unit, figures))
    return tools, rows


def text(x, y, words, anchor="start", weight="normal"):
    attributes = f'x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {attributes}>{escape(words)}</text>'


def panel(left, top, tools, row):
    """Returns the lines of one panel: its title, then a name, a bar and a number for each tool."""
    workload, unit, figures = row
    lines = [text(left, top + 14, f"{workload}: {unit}", weight="bold")]
    room = PANEL_WIDTH - NAME_WIDTH - NUMBER_WIDTH - MARGIN
    largest = max(map(float, figures))
    for index, (tool, figure) in enumerate(zip(tools, figures)):
        y = top + TITLE_HEIGHT + index * BAR_STEP
        # A bar of no width would look like a missing figure.
        width = max(1.0, float(figure) / largest * room)
        weight = "bold" if index == 0 else "normal"
        lines.append(text(left + NAME_WIDTH - 6, y + 11, tool, "end", weight))
        colour = OURS if index == 0 else OTHERS
        bar = f'x="{left + NAME_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colour}"'
        lines.append(f"<rect {bar}/>")
        lines.append(text(f"{left + NAME_WIDTH + width + 5:.1f}", y + 11, figure, weight=weight))
    return lines


def chart(tools, rows):
    panel_height = TITLE_HEIGHT + len(tools) * BAR_STEP + PANEL_GAP
    width = COLUMNS * PANEL_WIDTH + MARGIN
    height = -(-len(rows) // COLUMNS) * panel_height + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">',
        f"<title>{escape(' and '.join([', '.join(tools[:-1]), tools[-1]]))} compared; shorter is better</title>",
    ]
    for index, row in enumerate(rows):
        left = MARGIN + index % COLUMNS * PANEL_WIDTH
        lines += panel(left, MARGIN + index // COLUMNS * panel_height, tools, row)
    return "\n".join(lines + ["</svg>", ""])


if __name__ == "__main__":
    (HERE / "comparison.svg").write_text(chart(*read(HERE / "figures.tsv")), encoding="utf-8")
