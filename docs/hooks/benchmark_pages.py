"""The pages of `benchmarks/`, with their figures, as pages of the site."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def navigation() -> list[dict[str, object]]:
    """Overview first, then a section for each benchmark: its page, and the pages beside it."""
    sections: list[dict[str, object]] = [{"Overview": "benchmarks/index.md"}]
    for folder in sorted({page.parent for page in _sources() if page.name == "README.md"}):
        others = sorted(page for page in folder.glob("*.md") if page.name != "README.md")
        first = _name(folder / "README.md")
        title = _title(folder / "README.md").split(":")[0]
        if others:
            sections.append({title: [first, *({_title(page): _name(page)} for page in others)]})
        else:
            sections.append({title: first})
    return sections


def pages() -> dict[str, str | bytes]:
    """Path and content of each page and figure."""
    sources = _sources()
    known = {source.resolve() for source in sources}
    return {
        _name(source): source.read_bytes()
        if source.suffix != ".md"
        else without_dead_links(source.read_text(encoding="utf-8"), base=source.parent, known=known)
        for source in sources
    }


def without_dead_links(text: str, *, base: Path, known: set[Path]) -> str:
    """Links to files that are no pages of the site (rows, configurations) as plain code."""

    def replaced(match: re.Match[str]) -> str:
        target = match["target"].partition("#")[0]
        if not target or "://" in target or (base / target).resolve() in known:
            return match[0].replace("README.md", "index.md")
        return match["text"] if match["text"].startswith("`") else f"`{match['text']}`"

    return _LINK.sub(replaced, text)


def _sources() -> list[Path]:
    return sorted(
        p for p in FOLDER.glob("*/*") if p.suffix in (".md", ".png", ".svg") and p.parent.name != "cache"
    )


def _name(source: Path) -> str:
    return source.relative_to(ROOT).as_posix().replace("README.md", "index.md")


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
