"""Formulas become MathML while the site is built, so that its pages load no script for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml import converter

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex marked."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["tag"] == "div" else "inline"
    return converter.convert(html.unescape(match["tex"]).strip(), display=display)
