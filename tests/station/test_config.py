"""Laws of a station's file: checked as a whole, unknown names answered with near ones, errors of one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from energyad.errors import SettingsError
from energyad.station.config import examine_station, read_station
from energyad.station.writing import Answers, station_text, write_station
from tests import ROOT

WHOLE = """
name = "press-4"
model = "gasket"
[[views]]
folder = "incoming"
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "station.toml"
    path.write_text(text)
    config, found = examine_station(path)
    assert (config is None) == bool(found)
    assert all(fault.startswith(f"{path}: ") and "\n" not in fault for fault in found)
    return [fault.removeprefix(f"{path}: ") for fault in found]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "station.toml").write_text(WHOLE + '[images]\nfolder = "kept"\n')
    config = read_station(tmp_path / "station.toml")
    assert config.views[0].folder == tmp_path / "incoming"
    assert config.database == str(tmp_path / "energyad.db")
    assert config.results == tmp_path / "results.jsonl"
    assert config.images is not None and config.images.folder == tmp_path / "kept"
    assert config.model_of(config.views[0]) == str(tmp_path / "models" / "gasket")
    (tmp_path / "gasket").mkdir()
    assert read_station(tmp_path / "station.toml").model == str(tmp_path / "gasket")


def test_a_database_that_is_a_url_stays_one(tmp_path: Path) -> None:
    (tmp_path / "station.toml").write_text('database = "postgresql://line@server/line"' + WHOLE)
    assert read_station(tmp_path / "station.toml").database == "postgresql://line@server/line"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WHOLE + "[mqtt]\nhosst = 'b'\nhost = 'b'", ("mqtt.hosst", "did you mean mqtt.host?")),
        (WHOLE + "[mqt]\nhost = 'b'", ("mqt", "did you mean mqtt?")),
        (WHOLE + "intervall = 3", ("views 1.intervall", "views 1.interval")),
        ("budget = 3" + WHOLE, ("budget: there is no such setting", "latency.budget")),
        (WHOLE + "[latency]\nmissed = 'ok'", ("latency.missed = 'ok'", "'review' or 'ng'")),
        (WHOLE + "[modbus]\nport = 70000", ("modbus.port = 70000", "65535")),
        (WHOLE + "[mqtt]\nport = 1", ("mqtt.host: is missing", "of the broker")),
        (WHOLE + "[webhook]\nurl = 'ftp://a'", ("webhook.url = 'ftp://a'", "http")),
        (WHOLE + "[mqtt]\nhost = 'b'\ntopic = 'a/#'", ("mqtt.topic", "without #")),
        ("name = 'a b'", ("name = 'a b'",)),
        ('name = "a"\n[[views]]\nfolder = "x"', ("front has no model",)),
        (WHOLE + '[[views]]\nname = "side"\nfolder = "incoming"', ("2 have the folder",)),
        (WHOLE + '[[views]]\nfolder = "b"', ("2 have the name 'front'",)),
        ("views = [", ("is not TOML",)),
    ],
)
def test_a_fault_names_the_setting_and_what_to_do(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    found = faults(tmp_path, text)
    assert any(all(word in fault for word in words) for fault in found), found


def test_all_faults_are_said_together_and_the_first_one_is_raised(tmp_path: Path) -> None:
    found = faults(tmp_path, "nam = 'a'\n[modbus]\nport = -1\n[latency]\nbudget = 0\n")
    assert len(found) == 5  # also name and views are missing
    with pytest.raises(SettingsError) as raised:
        read_station(tmp_path / "station.toml")
    assert found[0] in str(raised.value)


def test_a_file_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"station\.toml: cannot be read.*energyad station new"):
        read_station(tmp_path / "station.toml")


def test_what_new_writes_is_read_as_it_was_answered(tmp_path: Path) -> None:
    answers = Answers(
        name="press-4", model='odd "name" \\ é', views=[("top", "in/top"), ("side", "in/side")], images="kept",
        budget=0.5, mqtt=("broker", 1884), modbus=5021, opcua=4841, webhook="https://line.example/parts",
        archive="archive", metrics=9109,
    )  # fmt: skip
    path = tmp_path / "station.toml"
    write_station(path, answers)
    config = read_station(path)
    assert (config.name, [view.name for view in config.views]) == ("press-4", ["top", "side"])
    assert config.model == str(tmp_path / "models" / 'odd "name" \\ é')
    assert (tmp_path / "in" / "side").is_dir()
    assert config.mqtt is not None and (config.mqtt.port, config.mqtt.topic) == (1884, "energyad/press-4")
    assert config.modbus is not None and config.opcua is not None and config.metrics is not None
    assert (config.modbus.port, config.opcua.port, config.metrics.port) == (5021, 4841, 9109)
    assert config.latency.budget == 0.5
    with pytest.raises(SettingsError, match="exists"):
        write_station(path, answers)
    assert path.read_text() == station_text(answers)


def test_an_illegal_answer_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name = 'a b'"):
        write_station(tmp_path / "station.toml", Answers(name="a b", model="m", views=[("front", "in")]))
    assert not list(tmp_path.iterdir())


def test_the_stations_of_the_documentation_are_legal(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "station.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    assert [faults(tmp_path, block) for block in blocks] == [[]] * len(blocks)
