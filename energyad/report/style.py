"""The style sheet of the HTML page, light and dark."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark; --ink: #181c24; --faint: #69707d; --line: #dfe2e7;
  --paper: #fff; --card: #f6f7f9; --alarm: #b81e2c; --mild: #8a5a00; --blue: #2654b2;
}
@media(prefers-color-scheme:dark) {
  :root {
    --ink: #e6e8ec; --faint: #98a0ad; --line: #333a45; --paper: #14171c;
    --card: #1c2027; --alarm: #ff7a80; --mild: #f0b849; --blue: #8ab4ff;
  }
}
body {
  font: 15px/1.5 system-ui,sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 2rem auto; padding: 0 1.2rem;
}
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
.faint { color: var(--faint); }
.note { border-left: 4px solid var(--blue); background: var(--card); padding: .6rem 1rem; margin: 1rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1.1rem;
  min-width: 8.5rem;
}
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: var(--faint); }
.parts { display: grid; grid-template-columns: repeat(auto-fill,minmax(21rem,1fr)); gap: 1rem; }
figure { margin: 0; }
figure div { display: flex; gap: 3px; }
figure img {
  width: calc((100% - 6px)/3); height: auto; min-width: 0; aspect-ratio: 1; object-fit: contain;
  background: var(--card);
}
figcaption { font-size: .85rem; color: var(--faint); }
figure .n1 img { width: 100%; }
figure .n2 img { width: calc((100% - 3px)/2); }
figcaption { overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
details .parts { margin-top: .7rem; }
summary { cursor: pointer; font-weight: 600; }
summary .faint { font-weight: 400; }
.mild { color: var(--mild); font-weight: 600; }
.warn { border-left-color: var(--alarm); }
table.words td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
table.words td:first-child { color: var(--faint); min-width: 6rem; }
.bad { color: var(--alarm); font-weight: 600; }
svg text { fill: var(--ink); font-size: 12px; }
svg .axis { stroke: var(--line); }
svg .limit { stroke: var(--alarm); stroke-dasharray: 4 3; }
svg circle { fill: var(--blue); fill-opacity: .55; }
svg circle.over { fill: var(--alarm); }
svg .limit.mild { stroke: var(--mild); }
svg .bar { fill: var(--blue); fill-opacity: .7; }
svg .bar.over { fill: var(--alarm); }
svg .good { stroke: var(--ink); stroke-width: 1.5; }
svg .tick { fill: var(--faint); }
.scroll { overflow-x: auto; }
.scale img { width: 26rem; max-width: 100%; height: 14px; }
.scale span {
  display: grid; grid-template-columns: 1fr auto 1fr; width: 26rem; max-width: 100%;
  font-size: .8rem;
}
.scale i { font-style: normal; }
.scale i:last-child { text-align: right; }
"""
