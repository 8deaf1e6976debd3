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
    tex = html.unescape(match["tex"]).strip()
    if match["tag"] == "span":
        return converter.convert(tex, display="inline")
    # Browsers do not scroll a formula itself, and a narrow screen cuts a long one off.
    return f'<div class="formula">{converter.convert(tex, display="block")}</div>'
