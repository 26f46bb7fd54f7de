from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nearfar import ArtefactError, DataError, InputError
from nearfar.app import training
from nearfar.app.calibration import (
    Calibration,
    OpenSet,
    calibrate,
    enrol,
    load_calibration,
    save_calibration,
)
from nearfar.app.decisions import answer, verdict
from nearfar.app.encoder import ConvEncoder, EncoderConfig
from nearfar.app.files import read_json, write_json
from nearfar.app.manifest import write_manifest
from nearfar.app.model import Model, load, save_model
from nearfar.metrics import Platt, Threshold
from training_child import tiny, without_evaluation, write_stripes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("stripes") / "data", classes=7, items=4)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nearfar.app.evaluation", without_evaluation())
        folder = tmp_path_factory.mktemp("run") / "run"
        yield training.train(data, folder, preset=tiny(), fmr=0.05, progress=False)


@pytest.fixture
def small() -> Model:
    """A model made by hand, without a run."""
    torch.manual_seed(8)
    encoder = ConvEncoder(EncoderConfig(1, (8, 6), (4,), 3)).eval()
    return Model(encoder, "L", ("ann", "bob"), np.eye(3, dtype=np.float32)[[2, 0]])


def by_hand(threshold: float = 0.4, known: float = 0.6) -> Calibration:
    limit = Threshold(threshold, 0.01, 0.03, False, 8, "estimate only: too few", None, 12)
    return Calibration("f00d", limit, Platt(3.0, -1.0, 0.2), OpenSet(known, 0.05, 1, 9))


def test_embeddings_are_unit_rows_in_the_order_of_the_files(run: Path, data: Path) -> None:
    model = load(run)
    files = [data / "c3" / "1.png", str(data / "c0" / "2.png"), data / "c5" / "0.png"]
    rows = model.embed(files)
    assert rows.dtype == np.float32
    assert rows.shape == (3, 6)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-6)
    for file, row in zip(files, rows, strict=True):
        assert model.embed([file])[0] == pytest.approx(row, abs=1e-6)
    assert model.embed([]).shape == (0, 6)
    assert model.pictures(files).shape == (3, 1, 20, 16)


def test_a_mirrored_picture_is_the_same(run: Path, data: Path, tmp_path: Path) -> None:
    original = data / "c2" / "1.png"
    with Image.open(original) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    assert load(run).verify(original, tmp_path / "mirrored.png").score == pytest.approx(1, abs=1e-5)


def test_verify_is_symmetric_and_follows_the_threshold(run: Path, data: Path) -> None:
    model = load(run)
    limit = read_json(run / "calibration.json")["verify"]
    answers = set()
    for a in data.glob("c[0-2]/0.png"):
        for b in data.glob("c[0-4]/1.png"):
            found, back = model.verify(a, b), model.verify(b, a)
            assert found.score == pytest.approx(back.score, abs=1e-12)
            assert found.threshold == limit["value"]
            assert found.fmr == 0.05
            assert not found.certified  # two classes certify nothing
            assert "estimate only" in found.words
            assert found.same == (found.score >= found.threshold)
            assert 0 < found.probability < 1
            answers.add(found.same)
    assert answers == {True, False}


def test_classify_names_the_nearest_reference_or_none(run: Path, data: Path) -> None:
    model = load(run)
    assert model.classes == tuple(f"c{i}" for i in range(7))
    for path in data.glob("c*/2.png"):
        found = model.classify(path)
        row = model.embed([path])[0].astype(float)
        scores = [float(np.dot(row, reference)) for reference in model.references]
        assert found.nearest == model.classes[int(np.argmax(scores))]
        assert found.score == pytest.approx(max(scores), abs=1e-6)
        assert found.label == (found.nearest if found.score >= found.threshold else None)


def test_references_are_the_directions_of_class_means() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(7, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.array([1, 0, 1, 2, 0, 1, 2])
    found = enrol(rows, labels, 3)
    for c in range(3):
        total = sum(rows[i].astype(float) for i in range(7) if labels[i] == c)
        assert found[c] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    with pytest.raises(InputError, match="class without direction"):
        enrol(rows, labels, 4)
    with pytest.raises(InputError, match="class without direction"):
        enrol(np.array([[1, 0], [-1, 0]], dtype=np.float32), np.array([0, 0]), 1)


def test_calibration_against_loops() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([3, 0, 4], [9, 12, 10])
    rows = (rng.normal(size=(5, 4))[labels] + 0.8 * rng.normal(size=(31, 4))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    references = rng.normal(size=(5, 4)).astype(np.float32)
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    found = calibrate("f00d", rows, labels, references, fmr=0.1)
    impostors = [rows[i] @ rows[j] for i in range(31) for j in range(i) if labels[i] != labels[j]]
    accepted = sum(float(s) >= found.verify.value for s in impostors)
    assert accepted / len(impostors) <= 0.1 < (accepted + 2) / len(impostors)
    highest = []
    for row, label in zip(rows, labels, strict=True):
        highest.append(max(float(row @ references[c]) for c in range(5) if c != label))
    passed = sum(s >= found.classify.threshold for s in highest)
    assert passed == 1  # 5 % of 31 searches
    assert (found.classify.gallery, found.classify.searches, found.classify.fpir) == (4, 31, 0.05)
    assert found.probability.slope > 0
    assert found.verify.classes == 3
    assert found.words.startswith("estimate only")


def test_a_calibration_survives_its_file_and_belongs_to_one_model(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(path, by_hand())
    assert load_calibration(path, "f00d") == by_hand()
    with pytest.raises(ArtefactError, match="calibration of the model beef"):
        load_calibration(path, "beef")
    path.write_text(path.read_text().replace('"value": 0.4', '"value": 0.1'))
    with pytest.raises(ArtefactError, match="got other content"):
        load_calibration(path, "f00d")
    write_json(path, {"format": "nearfar calibration", "version": 2})
    with pytest.raises(ArtefactError, match="version 1"):
        load_calibration(path, "f00d")


def test_a_calibration_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    save_calibration(copy / "calibration.json", by_hand())
    with pytest.raises(ArtefactError, match="got one of f00d"):
        load(copy)
    (copy / "calibration.json").unlink()
    with pytest.raises(ArtefactError, match="expected a calibrated model"):
        load(copy).verify("a.png", "b.png")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(DataError, match="nothing is decided"):
        verdict(score, by_hand(threshold=-2.0))
    with pytest.raises(DataError, match="nothing is decided"):
        answer([0.3, score], ["ann", "bob"], by_hand(known=-2.0))
    with pytest.raises(DataError, match="nothing is decided"):
        answer([], [], by_hand())


@pytest.mark.parametrize(("score", "same"), [(0.4, True), (np.nextafter(0.4, 0), False), (0.9, True)])
def test_a_verdict_says_which_side_of_the_threshold(score: float, same: bool) -> None:
    found = verdict(score, by_hand())
    assert found.same is same
    prior = 0.2 / 0.8  # odds of the pairs that the probability was fitted on
    odds = np.exp(3.0 * score - 1.0) / prior
    assert found.probability == pytest.approx(odds / (1 + odds))
    assert ("at or above the threshold 0.400" in found.words) is same


def test_an_answer_may_be_unknown() -> None:
    found = answer([0.1, 0.7, 0.2], ["ann", "bob", "cy"], by_hand())
    assert (found.label, found.nearest, found.score) == ("bob", "bob", 0.7)
    found = answer([0.1, 0.2, 0.59], ["ann", "bob", "cy"], by_hand())
    assert (found.label, found.nearest) == (None, "cy")
    assert "below the threshold 0.600" in found.words


def test_an_embedding_that_says_nothing_is_refused(small: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(np.full((8, 6), 77, dtype=np.uint8)).save(tmp_path / "plain.png")
    Image.fromarray(rng.integers(0, 255, (8, 6), dtype=np.uint8)).save(tmp_path / "noise.png")
    (tmp_path / "text.png").write_text("no picture")
    model = replace(small, calibration=by_hand(threshold=-2.0, known=-2.0))
    assert model.verify(tmp_path / "noise.png", tmp_path / "noise.png").same
    with pytest.raises(DataError, match=r"plain\.png, got a single tone"):
        model.verify(tmp_path / "noise.png", tmp_path / "plain.png")
    with pytest.raises(DataError, match=r"text\.png"):
        model.classify(tmp_path / "text.png")
    for value in (float("nan"), 0.0):
        for weight in model.encoder.head.parameters():
            nn.init.constant_(weight, value)
        with pytest.raises(DataError, match=r"embedding of length 1 for .*noise\.png"):
            model.verify(tmp_path / "noise.png", tmp_path / "noise.png")
        with pytest.raises(DataError, match="embedding of length 1"):
            model.classify(tmp_path / "noise.png")


def test_save_and_load_are_inverse(small: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "model", small)
    found = load(tmp_path)
    assert found.fingerprint == small.fingerprint
    assert (found.mode, found.classes, found.calibration) == ("L", ("ann", "bob"), None)
    assert np.array_equal(found.references, small.references)
    for name, tensor in small.encoder.state_dict().items():
        assert torch.equal(found.encoder.state_dict()[name], tensor)
    save_model(tmp_path / "model", replace(small, classes=(), references=None))
    assert load(tmp_path).references is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_the_fingerprint_sees_every_weight_and_the_preprocessing(small: Model) -> None:
    before = small.fingerprint
    assert replace(small, classes=("eve",)).fingerprint == before
    assert replace(small, mode="RGB").fingerprint != before
    for parameter in small.encoder.parameters():
        parameter.data.view(-1)[-1] += 1e-3
        assert small.fingerprint != before
        before = small.fingerprint


def copied(run: Path, to: Path) -> Path:
    for path in run.rglob("*"):
        if path.is_file():
            target = to / "copy" / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to / "copy"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "references.safetensors", "model.json", "checksums.json"])
def test_a_damaged_model_is_refused(run: Path, tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    copy = copied(run, tmp_path)
    harm(copy / "model" / name)
    if (name, harm) == ("checksums.json", cut):  # its last character is a line break
        load(copy)
        return
    with pytest.raises(ArtefactError, match=name):
        load(copy)


def test_checksums_alone_do_not_make_a_model(run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    card = copy / "model" / "model.json"
    good = json.loads(card.read_text())

    def refused(said: str, **changes: object) -> None:
        write_json(card, {**good, **changes})
        write_manifest(copy / "model")
        with pytest.raises(ArtefactError, match=said):
            load(copy)

    refused("weights that fit", architecture={**good["architecture"], "dim": 7})
    refused("weights that fit", architecture={"channels": 1})
    refused("weights that fit", architecture={**good["architecture"], "channels": 2})
    refused("references of shape", classes=["c0"])
    refused("expected the model 0000", fingerprint="0000")
    refused("version 1", version=2)
    refused("expected the model", preprocessing={**good["preprocessing"], "mode": "RGB"})
    write_json(card, good)
    model = load_after(copy)
    with torch.no_grad():
        model.encoder.head.bias[1] = float("nan")
    save_model(copy / "model", model)
    with pytest.raises(ArtefactError, match="finite weights"):
        load(copy)


def load_after(copy: Path) -> Model:
    write_manifest(copy / "model")
    return load(copy)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="model"):
        load(tmp_path)
