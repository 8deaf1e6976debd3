"""Pages that are made while the site is built: from the program, the settings, the schema, benchmarks and notebooks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

import api  # noqa: E402
import benchmark_pages  # noqa: E402
import command_line  # noqa: E402
import notebook_pages  # noqa: E402
import result_schema  # noqa: E402
import settings_page  # noqa: E402
import station_page  # noqa: E402

_FETCHED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?://[^"]+)"')
GENERATED = {
    "reference/cli.md": command_line.page,
    "reference/settings.md": settings_page.page,
    "reference/results.md": result_schema.page,
    "reference/station.md": station_page.page,
    "project/changelog.md": lambda: _copied("CHANGELOG.md"),
    "project/contributing.md": lambda: _copied("CONTRIBUTING.md"),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    sections = {"API": api.navigation(), "BENCHMARKS": benchmark_pages.navigation()}
    config.nav = _filled(config.nav, sections)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    texts: dict[str, str | bytes] = {path: make() for path, make in GENERATED.items()}
    texts |= api.pages() | benchmark_pages.pages() | notebook_pages.pages()
    for path, content in texts.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would fetch something from another host when it is viewed."""
    fetched = _FETCHED.search(output)
    if fetched:
        raise PluginError(f"{page.file.src_uri}: would fetch {fetched[1]}; keep it beside the page")
    return output


def _copied(name: str) -> str:
    """A page of the repository's root, its links to other files of the repository as plain code."""
    return benchmark_pages.without_dead_links(
        (ROOT / name).read_text(encoding="utf-8"), base=ROOT, known=set()
    )


def _filled(nav: Any, sections: dict[str, Any]) -> Any:
    if isinstance(nav, list):
        return [_filled(entry, sections) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, sections) for title, entry in nav.items()}
    return sections.get(nav, nav)
