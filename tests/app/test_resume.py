"""What survives: kills at any moment, rot, signals, two trainers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearfar import ArtefactError, UsageError
from nearfar.app import training
from nearfar.app.runs import FINISHED, locked
from training_child import STEPS, digest, start, write_stripes

LONGEST = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("stripes") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of a run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(data, run)
    return digest(run)


def finish(data: Path, run: Path) -> None:
    process = start(data, run)
    process.join(LONGEST)
    assert process.exitcode == 0


def steps_saved(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.glob("checkpoints/step-*"))


def leftovers(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.name.startswith(".")]


def test_an_uninterrupted_run_is_complete_and_equal_to_its_twin(
    data: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finish(data, run)
    assert digest(run) == whole
    assert steps_saved(run) == [16, STEPS]
    assert (run / FINISHED).exists()
    assert leftovers(run) == []


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    data: Path, whole: dict[str, str], tmp_path: Path, kills: int
) -> None:
    rng = random.Random(20)
    run, killed, done = tmp_path / "0", 0, []
    while killed < kills:
        process = start(data, run, slow=0.1)
        process.join(rng.uniform(0.05, 1.2))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # it came to its end before its kill: the next one is another run
            done.append(run)
            run = tmp_path / str(len(done))
    finish(data, run)
    for one in [*done, run]:
        assert digest(one) == whole
        assert leftovers(one) == []


@pytest.mark.parametrize("point", [2, 9, 30, 58, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 110, 3))])
def test_killed_before_any_write_it_ends_with_the_same_bits(
    data: Path, whole: dict[str, str], tmp_path: Path, point: int
) -> None:
    run = tmp_path / "run"
    process = start(data, run, die_at=point)
    process.join(LONGEST)
    assert process.exitcode in (-signal.SIGKILL, 0)
    assert point > 60 or process.exitcode != 0  # the early points are reached
    finish(data, run)
    assert digest(run) == whole
    assert leftovers(run) == []


def wait_for(path: Path) -> None:
    end = time.monotonic() + LONGEST
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_a_checkpoint_and_the_run_goes_on_exactly(
    data: Path, whole: dict[str, str], tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    process = start(data, run, slow=0.2)
    wait_for(run / "checkpoints" / "step-00000004")
    time.sleep(0.3)  # into the steps between two checkpoints
    os.kill(process.pid or 0, number)
    process.join(10)  # a checkpoint within ten seconds
    assert process.exitcode == code  # multiprocessing turns KeyboardInterrupt into 1; the command into 130
    assert 4 < steps_saved(run)[-1] < STEPS
    finish(data, run)
    assert digest(run) == whole


def test_interrupting_the_command_exits_130_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = "from nearfar.app import presets, training; from training_child import tiny"
    command = f"{small}; presets.PRESETS = {{'default': tiny()}}; from nearfar.cli import main; main()"
    helpers = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = ["train", str(data), "--out", str(run), "--steps", "100000"]
    with subprocess.Popen([sys.executable, "-c", command, *arguments], env=helpers, stderr=subprocess.PIPE) as process:
        wait_for(run / "metrics.jsonl")
        process.send_signal(signal.SIGINT)
        said = (process.communicate(timeout=LONGEST)[1] or b"").decode()
    assert process.returncode == 130
    assert f"continue with: nearfar resume {run}" in said
    assert steps_saved(run)


@pytest.mark.parametrize("damage", ["flip", "cut", "lost"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    data: Path, whole: dict[str, str], tmp_path: Path, damage: str
) -> None:
    run = tmp_path / "run"
    finish(data, run)
    (run / FINISHED).unlink()
    tensors = run / "checkpoints" / f"step-{STEPS:08d}" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    if damage == "lost":
        tensors.unlink()
    else:
        content[len(content) // 2] ^= 4
        tensors.write_bytes(content if damage == "flip" else content[:100])
    finish(data, run)
    assert digest(run) == whole
    assert steps_saved(run) == [16, STEPS]


def test_without_any_intact_checkpoint_it_starts_again(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(data, run)
    (run / FINISHED).unlink()
    for path in run.glob("checkpoints/*/checksums.json"):
        path.write_text("{}")
    finish(data, run)
    assert digest(run) == whole


def test_a_finished_run_says_so_and_changes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    finish(data, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert training.resume(run) == run
    assert "is finished" in " ".join(capsys.readouterr().err.split())
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_two_trainers_of_one_run_are_one_too_many(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(data, run, slow=0.3)
    wait_for(run / "checkpoints" / "step-00000004")
    try:
        with pytest.raises(UsageError, match=f"held by process {process.pid}"):
            training.resume(run, progress=False)
        with pytest.raises(UsageError, match="held by process"):
            training.train(data, run, overwrite=True, progress=False)
        assert (run / "checkpoints" / "step-00000004").exists()
    finally:
        process.kill()
        process.join()
    finish(data, run)  # the lock of the dead one is no obstacle


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("1\n")  # a process that lives, but does not hold the lock
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(UsageError, match="nobody is training"), locked(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_changed_data_or_settings_are_refused(data: Path, tmp_path: Path) -> None:
    copy, run = tmp_path / "data", tmp_path / "run"
    write_stripes(copy)
    process = start(copy, run, slow=0.2)
    wait_for(run / "checkpoints" / "step-00000004")
    process.kill()
    process.join()
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("temperature: 0.1", "temperature: 0.2"))
    with pytest.raises(ArtefactError, match="got one of other settings"):
        training.resume(run, progress=False)
    (run / "config.yaml").write_text(settings)
    (copy / "c1" / "0.png").unlink()
    with pytest.raises(ArtefactError, match="data that have changed"):
        training.resume(run, progress=False)
