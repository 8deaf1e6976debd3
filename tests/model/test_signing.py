"""Laws of signatures: where keys are trusted, no model is read that none of them signed."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner

from energyad.cli import app
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError, SettingsError
from energyad.integrations.registry import pull_model, push_model
from energyad.line.reloading import ReloadingDetector
from energyad.model import signing
from energyad.model.folder import open_model, read_manifest, read_signatures, save_model, sign_model


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "models" / "part"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.make_keys(tmp_path / "plant.pem")
    return tmp_path / "plant.pem"


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_a_model_is_read_where_a_trusted_key_signed_it_and_else_refused(folder: Path, key: Path) -> None:
    other = key.with_name("other.pem")
    signing.make_keys(other)
    with pytest.raises(ModelError, match=r"refused: not signed \(model\.sig is missing\)"):
        AnomalyDetector.load(folder, trusted_keys=[public(key)])
    sign_model(folder, other)
    with pytest.raises(ModelError, match="not by a trusted key"):
        AnomalyDetector.load(folder, trusted_keys=[public(key)])
    sign_model(folder, key)
    sign_model(folder, key)
    assert len((read_signatures(folder) or "").splitlines()) == 2  # one for each key
    for keys in ([public(key)], [public(other)], [public(other), public(key)]):
        assert AnomalyDetector.load(folder, trusted_keys=keys).name == read_manifest(folder).name


def test_a_signature_is_of_one_state_of_one_model(folder: Path, key: Path) -> None:
    sign_model(folder, key)
    signatures = (folder / signing.SIGNATURE_FILE).read_bytes()
    manifest, contents = open_model(folder)
    raised = manifest.calibration.threshold * 2
    values = {
        **manifest.model_dump(),
        "calibration": {**manifest.model_dump()["calibration"], "threshold": raised},
    }
    forged = type(manifest).model_validate(values)
    save_model(folder, forged, contents)  # with new digests, as who may write the folder can
    with pytest.raises(ModelError, match="not signed"):
        open_model(folder, trusted_keys=[public(key)])
    (folder / signing.SIGNATURE_FILE).write_bytes(signatures)
    with pytest.raises(ModelError, match="its signature is not of this model"):
        open_model(folder, trusted_keys=[public(key)])
    assert open_model(folder)[0].calibration.threshold == raised


def test_a_signature_of_the_digest_for_another_purpose_is_none(folder: Path, key: Path) -> None:
    number = sign_model(folder, key)
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    digest = json.loads((folder / "model.json").read_text())["sha256"]
    bare = base64.b64encode(private.sign(digest.encode())).decode()  # type: ignore[union-attr,call-arg]
    (folder / signing.SIGNATURE_FILE).write_text(f"{number} {bare}\n")
    with pytest.raises(ModelError, match="its signature is not of this model"):
        open_model(folder, trusted_keys=[public(key)])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x" * 500, b"\xff\0\x1b[31m", b"%s ====\n", b"%s\n"])
def test_a_damaged_signature_is_refused_in_one_line(folder: Path, key: Path, content: bytes) -> None:
    number = sign_model(folder, key).encode()
    (folder / signing.SIGNATURE_FILE).write_bytes(content.replace(b"%s", number))
    with pytest.raises(ModelError) as caught:
        open_model(folder, trusted_keys=[public(key)])
    assert "refused" in str(caught.value) and str(caught.value).isprintable()


def test_a_signature_that_is_no_regular_file_is_not_waited_for(folder: Path, key: Path) -> None:
    os.mkfifo(folder / signing.SIGNATURE_FILE)
    with pytest.raises(ModelError, match="not a regular file"):
        open_model(folder, trusted_keys=[public(key)])


def test_a_damaged_model_is_not_signed(folder: Path, key: Path) -> None:
    (folder / "scorer.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="altered"):
        sign_model(folder, key)
    assert read_signatures(folder) is None


def test_what_is_no_key_is_named(folder: Path, key: Path, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in {
        "rsa.pem": pem,
        "text.pem": b"hello",
        "public.pem": public(key).read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=name):
            sign_model(folder, tmp_path / name)
    sign_model(folder, key)
    for name in ("text.pem", "missing.pem", "rsa.pem", "plant.pem"):
        with pytest.raises(ModelError, match=f"trusted key .*{name}"):
            open_model(folder, trusted_keys=[tmp_path / name])
    with pytest.raises(SettingsError, match="file exists"):
        signing.make_keys(key)
    assert key.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_variable_holds_for_every_load_and_every_command(
    folder: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.TRUSTED_KEYS_VARIABLE, str(public(key)))
    image = folder.with_name("part.png")
    image.write_bytes(b"no matter")
    for words in (["score", str(image), "--model", str(folder)], ["models", "verify", str(folder)]):
        outcome = CliRunner().invoke(app, words)
        assert outcome.exit_code == 2 and "not signed" in outcome.stderr, words
    assert CliRunner().invoke(app, ["models", str(folder.parent)]).exit_code == 2
    assert CliRunner().invoke(app, ["models", "sign", str(folder), "--key", str(key)]).exit_code == 0
    assert CliRunner().invoke(app, ["models", "verify", str(folder)]).exit_code == 0
    assert CliRunner().invoke(app, ["models", str(folder.parent)]).exit_code == 0
    AnomalyDetector.load(folder)


def test_signatures_go_through_a_registry(folder: Path, key: Path, tmp_path: Path) -> None:
    sign_model(folder, key)
    push_model(folder, str(tmp_path / "registry"))
    pull_model(f"{tmp_path}/registry/{read_manifest(folder).name}", tmp_path / "arrived")
    open_model(tmp_path / "arrived", trusted_keys=[public(key)])


def test_a_line_keeps_its_signed_model_where_an_unsigned_one_takes_its_place(folder: Path, key: Path) -> None:
    sign_model(folder, key)
    reasons: list[str] = []
    model = ReloadingDetector(
        folder,
        lambda place: AnomalyDetector.load(place, threads=1, trusted_keys=[public(key)]),
        on_error=lambda error: reasons.append(str(error)),
    )
    first = model()
    save_model(folder, *open_model(folder))
    assert model() is first and model() is first
    assert len(reasons) == 1 and "not signed" in reasons[0]
    sign_model(folder, key)
    assert model() is not first
