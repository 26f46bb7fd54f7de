from __future__ import annotations

import errno
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nearfar import DataError, DivergenceError, UsageError
from nearfar.app import checkpoints, loop, training
from nearfar.app.files import read_json
from nearfar.app.health import collapse, health
from nearfar.app.presets import PRESETS, Preset, build_loss, preset
from nearfar.app.progress import Reporter
from nearfar.app.runs import read_config
from nearfar.app.state import State
from training_child import STEPS, digest, tiny, without_evaluation, write_stripes


@pytest.fixture(autouse=True)
def judged_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nearfar.app.evaluation", without_evaluation())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("stripes") / "data")


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_holds_all_it_should(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = training.train(data, tmp_path / "a" / "run", preset=tiny(), steps=7, seed=4, fmr=0.05)
    found = {path.name for path in run.iterdir()}
    files = "config.yaml split.json environment.json metrics.jsonl calibration.json finished.json report.html"
    assert found == {*files.split(), "checkpoints", "model"}
    config = read_config(run)
    assert (config.preset.steps, config.seed, config.fmr, config.preset.mode) == (7, 4, 0.05, "L")
    assert config.data == data
    split = read_json(run / "split.json")
    sides = [split["train"], split["val"], split["test"]]
    assert sorted(name for side in sides for name in side) == [f"c{i}" for i in range(6)]
    assert read_json(run / "environment.json")["device"] == "cpu"
    assert [line["step"] for line in lines(run)] == [3, 6, 7]
    assert set(lines(run)[0]) == {"step", "loss", "positive", "negative", "active", "rank", "gradient"}
    said = capsys.readouterr()
    assert said.out == ""
    assert "step 3/7" in said.err
    assert "36 pictures of 6 classes" in said.err
    assert "estimate only" in " ".join(said.err.split())


def test_progress_can_be_silent(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training.train(data, tmp_path / "run", preset=tiny(), steps=2, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_learns_to_tell_classes_apart(data: Path, tmp_path: Path, name: str) -> None:
    loss = {key: value for key, value in PRESETS[name].to_dict().items() if key.endswith("_weight")}
    settings = tiny(**loss, steps=12, augment=False, report_every=1)
    run = training.train(data, tmp_path / "run", preset=settings, progress=False)
    first, last = lines(run)[0], lines(run)[-1]
    assert last["loss"] < first["loss"]
    assert last["positive"] > 0.02 + first["positive"]
    assert last["positive"] > 0.5 + last["negative"]


def test_other_randomness_is_neither_used_nor_changed(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_deterministic_debug_mode()
    first = training.train(data, tmp_path / "1", preset=tiny(), progress=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before[1:]
    torch.manual_seed(2)
    second = training.train(data, tmp_path / "2", preset=tiny(), progress=False)
    other = training.train(data, tmp_path / "3", preset=tiny(), seed=1, progress=False)
    assert digest(first) == digest(second)
    weights = "model/weights.safetensors"
    assert digest(first)[weights] != digest(other)[weights]


def test_colour_is_noticed(tmp_path: Path) -> None:
    colourful = write_stripes(tmp_path / "data", colour=True)
    run = training.train(colourful, tmp_path / "run", preset=tiny(), steps=2, progress=False)
    assert read_config(run).preset.mode == "RGB"
    assert read_json(run / "model" / "model.json")["architecture"]["channels"] == 3


def test_nothing_is_overwritten_unasked(data: Path, tmp_path: Path) -> None:
    run = training.train(data, tmp_path / "run", preset=tiny(), steps=2, progress=False)
    with pytest.raises(UsageError, match="continue it with resume, or replace it"):
        training.train(data, run, preset=tiny(), progress=False)
    (run / "eval").mkdir()
    (run / "eval" / "old.json").write_text("{}")
    training.train(data, run, preset=tiny(), steps=3, overwrite=True, progress=False)
    assert read_config(run).preset.steps == 3
    assert not (run / "eval").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("a year of work")
    with pytest.raises(UsageError, match="with other files"):
        training.train(data, tmp_path / "thesis", preset=tiny(), overwrite=True, progress=False)
    assert (tmp_path / "thesis" / "chapter1").read_text() == "a year of work"
    with pytest.raises(UsageError, match="got the file"):
        training.train(data, tmp_path / "thesis" / "chapter1", preset=tiny(), progress=False)
    with pytest.raises(UsageError, match="expected a run folder"):
        training.resume(tmp_path / "thesis")


def test_data_that_cannot_be_used_leave_no_run(tmp_path: Path) -> None:
    few = write_stripes(tmp_path / "few", classes=5)
    with pytest.raises(DataError, match="expected 6 or more classes"):
        training.train(few, tmp_path / "run", preset=tiny(), progress=False)
    clash = write_stripes(tmp_path / "clash")
    (clash / "c1" / "copy.png").write_bytes((clash / "c0" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"c1/copy\.png"):
        training.train(clash, tmp_path / "run", preset=tiny(), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "supkon"}, "did you mean 'supcon'"),
        ({"preset": "zzz"}, "choose one of contrastive, default"),
        ({"seed": -1}, "expected a seed of at least 0"),
        ({"fmr": 1.0}, "write 1 % as 0.01"),
        ({"steps": 0}, "expected steps of at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(data: Path, tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        training.train(data, tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_divergence_stops_before_it_spreads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    calls = []

    def build(settings: Preset) -> object:
        real = build_loss(settings)

        def loss(embeddings: torch.Tensor, labels: torch.Tensor, **more: object) -> torch.Tensor:
            calls.append(1)
            value = real(embeddings, labels, **more)
            if len(calls) < 7:
                return value
            return value * math.nan if part == "loss" else value + 0 * torch.sqrt(0 * embeddings.sum())

        return loss

    monkeypatch.setattr(loop, "build_loss", build)
    with pytest.raises(DivergenceError, match=rf"finite {part} in step 7, got nan.*c\d/\d\.png") as caught:
        training.train(data, tmp_path / "run", preset=tiny(), progress=False)
    assert caught.value.exit_code == 6
    kept = checkpoints.newest(tmp_path / "run" / "checkpoints")
    assert kept is not None
    assert kept.step == 4
    assert all(torch.isfinite(t).all() for t in kept.tensors.values())
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "nearfar.app.evaluation", without_evaluation())
    training.resume(tmp_path / "run", progress=False)
    assert [line["step"] for line in lines(tmp_path / "run")] == [3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_refused_write_is_an_error_and_spares_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    good = checkpoints.Checkpoint(3, {"w": torch.arange(5.0)}, {"a": 1})
    checkpoints.save(tmp_path, good)
    real, calls = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(1) or real(handle))
    checkpoints.save(tmp_path, good)
    count = len(calls)
    assert count >= 5
    for fail_at in range(1, count):
        calls.clear()

        def refuse(handle: int, at: int = fail_at) -> None:
            calls.append(1)
            if len(calls) == at:
                raise OSError(code, os.strerror(code))
            real(handle)

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(UsageError, match="free space"):
            checkpoints.save(tmp_path, checkpoints.Checkpoint(4, {"w": torch.ones(5)}, {"a": 2}))
        found = checkpoints.newest(tmp_path)
        assert found is not None
        assert (found.step, found.state, found.tensors["w"].tolist()) == (3, {"a": 1}, [0, 1, 2, 3, 4])


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        checkpoints.save(tmp_path, checkpoints.Checkpoint(step, {"w": torch.tensor([float(step)])}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]
    checkpoints.clear_after(tmp_path, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000009"]
    assert checkpoints.newest(tmp_path / "none") is None


def test_unfinished_and_later_lines_of_metrics_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3}\n{"step": 6}\n{"step": 9}\n{"st')
    loop._cut_metrics(path, 6)
    assert path.read_text() == '{"step": 3}\n{"step": 6}\n'


def test_the_learning_rate_rises_and_falls() -> None:
    settings = tiny(steps=20, warmup=0.2, learning_rate=0.5)
    optimiser = torch.optim.AdamW([torch.zeros(1)], lr=9.0)
    rates = []
    for step in range(20):
        loop._set_rate(optimiser, settings, step)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:4] == [0.125, 0.25, 0.375, 0.5]
    wanted = [0.25 * (1 + math.cos(math.pi * (step - 4) / 16)) for step in range(4, 20)]
    assert rates[4:] == pytest.approx(wanted)


def test_views_depend_on_seed_and_step_alone() -> None:
    pictures = torch.randint(0, 256, (3, 1, 20, 16), generator=torch.Generator().manual_seed(0)).byte()
    settings = tiny(views=2)
    once = loop._views(pictures, settings, 3, 8)
    assert once.shape == (6, 1, 20, 16)
    assert torch.equal(once, loop._views(pictures, settings, 3, 8))
    for other in (loop._views(pictures, settings, 3, 9), loop._views(pictures, settings, 4, 8)):
        assert not torch.equal(once, other)
    assert not torch.equal(once[:3], once[3:])
    plain = loop._views(pictures, tiny(views=2, augment=False), 3, 8)
    assert torch.equal(plain[:3], plain[3:])


def test_the_running_average_of_weights() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, -2.0]))

    net = Net()
    state = State(net, torch.optim.AdamW(net.parameters()), average=0.6)
    wanted = np.array([1.0, -2.0])
    for step in range(5):
        net.w.data = torch.tensor([step * 2.0, step - 7.0])
        state.after_step(step)
        decay = min(0.6, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * np.array([step * 2.0, step - 7.0])
    assert state.average["w"].tolist() == pytest.approx(wanted.tolist())


def test_averaged_weights_become_the_model_and_survive_a_checkpoint(data: Path, tmp_path: Path) -> None:
    settings = tiny(average=0.7)
    run = training.train(data, tmp_path / "run", preset=settings, progress=False)
    kept = checkpoints.newest(run / "checkpoints")
    assert kept is not None
    model = checkpoints.read_tensors(run / "model" / "weights.safetensors")
    for name, tensor in model.items():
        assert torch.equal(tensor, kept.tensors[f"average.encoder.{name}"])
        assert not torch.equal(tensor, kept.tensors[f"weight.encoder.{name}"])
    whole = digest(run)
    (run / "finished.json").unlink()
    newest = run / "checkpoints" / f"step-{STEPS:08d}"
    (newest / "state.json").write_text("{}")
    training.resume(run, progress=False)
    assert digest(run) == whole


def test_health_against_loops() -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(6))
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    unit = (x.double() / x.double().norm(dim=1, keepdim=True)).numpy()
    cosine, n = unit @ unit.T, len(unit)
    same = [[bool(labels[i] == labels[j]) for j in range(n)] for i in range(n)]
    positive = [cosine[i, j] for i in range(n) for j in range(n) if i != j and same[i][j]]
    negative = [cosine[i, j] for i in range(n) for j in range(n) if not same[i][j]]
    active = 0
    for i in range(n):
        mine = [cosine[i, j] for j in range(n) if j != i and same[i][j]]
        others = [cosine[i, j] for j in range(n) if not same[i][j]]
        active += sum(s < max(others) for s in mine) + sum(s > min(mine, default=math.inf) for s in others)
    spectrum = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    share = spectrum / spectrum.sum()
    found = health(x, labels)
    assert found["positive"] == pytest.approx(np.mean(positive))
    assert found["negative"] == pytest.approx(np.mean(negative))
    assert found["active"] == pytest.approx(active / (len(positive) + len(negative)))
    assert found["rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_collapse_is_said_in_words() -> None:
    one = health(torch.ones(6, 5), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert one["rank"] == 0
    assert "almost equal" in (collapse(one, 3) or "")
    line = health(torch.tensor([[1.0, 0.1], [1.0, 0.1], [-1.0, -0.1], [0.99, 0.1]]), torch.arange(4) // 2)
    assert "on a line" in (collapse({**line, "negative": 0.0}, 3) or "")
    assert collapse({**line, "negative": 0.0}, 2) is None


def test_collapse_is_told_during_the_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "collapse", lambda line, classes: f"collapsed, {classes} classes")
    training.train(data, tmp_path / "run", preset=tiny(), steps=9)
    assert capsys.readouterr().err.count("warning: collapsed, 2 classes") == 3


class TestPresets:
    def test_round_trip_through_plain_values(self) -> None:
        for one in [*PRESETS.values(), tiny(average=0.5, mode="RGB")]:
            assert Preset.from_dict(json.loads(json.dumps(one.to_dict()))) == one

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"temprature": 0.1}, "did you mean 'temperature'"),
            ({"qqqq": 0.1}, "choose one of K, P"),
            ({"steps": 2.5}, "expected steps of type int, got 2.5"),
            ({"steps": True}, "expected steps of type int"),
            ({"temperature": "hot"}, "expected temperature of type float"),
            ({"temperature": 0}, "expected temperature above 0"),
            ({"margin": math.nan}, "expected margin above 0"),
            ({"size": [5]}, "expected size of type"),
            ({"widths": []}, "expected widths of type"),
            ({"K": 1}, "expected K of at least 2"),
            ({"average": 1.0}, r"expected average in \[0, 1\)"),
            ({"mode": "CMYK"}, "expected mode"),
            ({"softmax_weight": 0.0, "supcon_weight": 0.0}, "one above 0"),
            ({"supcon_weight": -1.0}, "loss weights of at least 0"),
        ],
    )
    def test_what_cannot_be_is_refused(self, values: dict, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            preset("default", **values)

    def test_the_loss_is_the_weighted_sum(self) -> None:
        import nearfar as nf

        g = torch.Generator().manual_seed(2)
        x, labels = torch.randn(12, 5, generator=g), torch.arange(12) % 4
        weights = torch.randn(4, 5, generator=g)
        settings = preset("default", softmax_weight=0.7, supcon_weight=0.2, contrastive_weight=3.0, margin=0.8)
        wanted = (
            0.7 * nf.CrossEntropyLoss(temperature=0.1, measure=nf.Cosine())(x, labels, class_weights=weights)
            + 0.2 * nf.SupConLoss(temperature=0.1)(x, labels)
            + 3.0 * nf.ContrastiveLoss(margin=0.8, balanced=True)(x, labels)
        )
        found = build_loss(settings)(x, labels, class_weights=weights)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_bar_appears_on_a_terminal_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Reporter() as report:
        report.start(0, 4, "training")
        report.advance()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Reporter() as report:
        report.start(1, 4, "training")
        report.advance()
        report.stop()
    said = capsys.readouterr()
    assert said.out == ""
    assert "2/4" in said.err
