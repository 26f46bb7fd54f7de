"""Evaluation of a small run: what is written, once, and with which warnings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar._errors import DataError
from nearfar.app import evaluation
from nearfar.app.baselines import Eigenfaces, cross_entropy_features, raw_pixels
from nearfar.app.data import Dataset, Item, scan
from nearfar.app.evaluation import evaluate, evaluate_run
from nearfar.app.fold_table import words
from nearfar.app.folds import summary
from nearfar.app.presets import preset
from nearfar.app.progress import Reporter
from nearfar.app.reliability import reliability
from nearfar.app.runs import read_config
from nearfar.app.split import load_split
from nearfar.app.training import train
from nearfar.metrics import Platt, brier, expected_calibration_error, pair_scores


def draw(folder: Path, classes: int, each: int, seed: int) -> Path:
    """Classes of noisy copies of a pattern."""
    rng = np.random.default_rng(seed)
    for c in range(classes):
        pattern = rng.uniform(40, 215, size=(6, 5)).repeat(4, 0).repeat(4, 1)
        (folder / f"c{c}").mkdir(parents=True)
        for i in range(each):
            noisy = np.clip(pattern + rng.normal(0, 25, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"c{c}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    small = preset("default", widths=[8, 8], dim=8, size=[24, 20], P=4, K=2, steps=3)
    return train(draw(folder / "data", 10, 4, 1), folder / "run", preset=small, progress=False)


def test_the_run_holds_its_evaluation_and_report(run: Path) -> None:
    result = json.loads((run / "eval" / "test.json").read_text())
    assert [m["key"] for m in result["methods"]] == ["model", "eigenfaces", "pixels", "untrained"]
    assert result["data"]["classes"] == len(load_split(run / "split.json", result["data"]["fingerprint"]).test)
    assert result["leak_check"]["passed"]
    assert result["threshold"]["sentence"].startswith("Estimate only")
    assert {d["key"] for d in result["differences"]} == {"eigenfaces", "pixels", "untrained"}
    assert (run / "report.html").stat().st_size > 1_000_000


def test_the_test_classes_are_opened_once(run: Path) -> None:
    before = (run / "eval" / "test.json").read_bytes()
    assert evaluate_run(run)["opened"] == json.loads(before)["opened"]
    assert (run / "eval" / "test.json").read_bytes() == before


def test_other_data_are_judged_and_kept_apart(run: Path, tmp_path: Path) -> None:
    result = evaluate(run, draw(tmp_path / "test", 3, 3, 2))
    assert result["data"]["classes"] == 3
    assert (run / "eval" / "test-data.json").is_file()  # never the run's own test.json
    assert not result["leak_check"]["passed"]  # c0 … c2 are names of the training too


def test_the_training_data_are_recognised(run: Path) -> None:
    result = evaluate(run, read_config(run).data)
    assert "too good" in result["leak_check"]["text"]


def test_one_class_is_not_enough(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        evaluate(run, draw(tmp_path / "one", 1, 3, 2))


def test_cross_entropy_joins_later_and_the_opening_stays(run: Path) -> None:
    config = read_config(run)
    opened = json.loads((run / "eval" / "test.json").read_text())["opened"]
    data = scan(config.data)
    split = load_split(run / "split.json", data.fingerprint)
    with Reporter(False) as report:
        first = cross_entropy_features(run, config, data, split.train, report)
        again = cross_entropy_features(run, config, data, split.train, report)
    assert first.fingerprint == again.fingerprint
    result = evaluate_run(run, {"title": "faces"})
    assert [m["key"] for m in result["methods"]][1] == "softmax"
    assert (result["opened"], result["title"]) == (opened, "faces")


def test_many_pictures_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MOST_ITEMS", 7)
    labels = [0] * 20 + [1] * 2 + [2] * 9
    items = tuple(Item(f"{i}", label) for i, label in enumerate(labels))
    data = Dataset(Path("d"), ("a", "b", "c"), items, (), "")
    subject = evaluation._subject(data, items, seed=5)
    assert sorted(np.bincount(subject.labels).tolist()) == [2, 2, 3]
    assert "7 pictures, drawn from 31" in subject.drawn


def test_reliability_at_the_natural_prior_is_the_plain_metric() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(6), 5)  # 435 pairs, 29 in each of 15 bins
    scores = rng.normal(size=(30, 30)) + 0.8 * (labels[:, None] == labels)
    pairs = pair_scores(scores, labels)
    values = np.concatenate([pairs.genuine, pairs.impostor])
    same = np.arange(len(values)) < len(pairs.genuine)
    curve = Platt(slope=1.3, intercept=-1.0, prior=0.3)
    prior = float(same.mean())
    found = reliability(pairs, curve, prior=prior)
    p = curve.probability(values, prior=prior)
    assert found["ece"]["value"] == pytest.approx(expected_calibration_error(p, same), abs=1e-9)
    assert found["brier"]["value"] == pytest.approx(brier(p, same), abs=1e-12)
    assert sum(b["count"] for b in found["bins"]) == 435


def test_reliability_at_even_odds_weighs_both_kinds_alike() -> None:
    labels = np.repeat(np.arange(5), 2)
    scores = np.where(labels[:, None] == labels, 1.0, -1.0)
    curve = Platt(slope=1.0, intercept=0.0, prior=0.5)
    found = reliability(pair_scores(scores, labels), curve)
    p = 1 / (1 + np.exp(-1.0))
    assert found["ece"]["value"] == pytest.approx(1 - p)
    assert found["brier"]["value"] == pytest.approx((1 - p) ** 2)


def test_eigenfaces_keep_the_share_and_whiten() -> None:
    pictures = torch.randint(0, 255, (12, 1, 5, 4), generator=torch.Generator().manual_seed(8)).byte()
    fitted = Eigenfaces(pictures)
    rows = raw_pixels(pictures)
    spectrum = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    kept = int(np.argmax(np.cumsum(spectrum) / spectrum.sum() >= 0.8)) + 1
    plain, white = (fitted.project(pictures, 0.8, w) for w in (False, True))
    assert plain.shape == white.shape == (12, kept)
    np.testing.assert_allclose(white.std(0, ddof=1), 1.0, atol=1e-9)
    np.testing.assert_allclose((plain**2).sum(0), spectrum[:kept], rtol=1e-9)


def test_fold_summary_and_table() -> None:
    misses = {"default": [0.1, 0.0, 0.2], "softmax": [0.1, 0.1, 0.3], "pixels": [0.3, 0.3, 0.4]}
    done = [{"methods": {k: {"0.05": v[i], "0.01": v[i] / 2} for k, v in misses.items()}} for i in range(3)]
    found = summary(done)
    assert found["methods"]["default"]["0.05"]["mean"] == pytest.approx(0.1)
    assert found["methods"]["default"]["0.05"]["sd"] == pytest.approx(0.1)
    assert found["methods"]["pixels"]["0.01"]["last"] == pytest.approx(0.2)
    pairs = {(d["method"], d["other"]): d for d in found["differences"] if d["fmr"] == "0.05"}
    assert set(pairs) == {("default", "pixels"), ("default", "softmax"), ("softmax", "pixels")}
    assert pairs["default", "pixels"]["value"] == pytest.approx(np.mean([-0.2, -0.3, -0.2]))
    text = words({"folds": done, "summary": found})
    assert max(len(line) for line in text.splitlines()) <= 60
    assert "default − raw pixels" in text


def test_the_demo_table_fits_sixty_columns(run: Path) -> None:
    from nearfar.app.demo import _words

    result = json.loads((run / "eval" / "test.json").read_text())
    lines = _words(result).splitlines()
    assert max(len(line) for line in lines) <= 60
    assert any(line.rstrip().endswith("MAP@R") for line in lines)
