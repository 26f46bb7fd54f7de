"""The command `nearfar`: results on standard output, progress on standard error, exit codes with a meaning.

0 success, same, known · 1 a negative decision · 2 usage · 3 data · 4 no guarantee · 5 incompatible artefact
6 diverged · 70 internal · 130 interrupted. An error is never 1. Nothing heavy is imported before its command.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from nearfar._errors import DataError, NearfarError
from nearfar.app.files import shown
from nearfar.app.tables import evaluation_rows, print_json, print_table, rows, write

try:
    import typer
except ModuleNotFoundError:
    sys.stderr.write("error: expected the package typer, got none; run: pip install 'nearfar[app]'\n")
    raise SystemExit(2) from None

app = typer.Typer(
    help="Learn what 'the same' means from examples, then decide: same, different, unknown.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder with one sub-folder of pictures per class.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `nearfar train` has written.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="Run folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides everything left to chance.")]


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    overwrite: Overwrite = False,
    folds: Annotated[bool, typer.Option("--folds", help="All eight folds, side by side with baselines.")] = False,
    seed: Seed = 0,
) -> None:
    """Train and decide on real faces, with nothing to prepare."""
    from nearfar.app import demo as job

    job.demo(out, seed=seed, overwrite=overwrite, folds=folds)


@app.command()
def check(data: Data, as_json: Json = False) -> None:
    """Say what is in the data and what is wrong with it."""
    from nearfar.app.progress import Reporter
    from nearfar.app.summary import lines, summary

    with Reporter() as report:
        dataset = _scan(data, report)
    found = summary(dataset)
    if as_json:
        print_json(found)
    else:
        print_table(lines(found))
        write("".join(f"{problem}\n" for problem in dataset.problems))
    try:
        dataset.require_trainable()
    except DataError as error:  # the problems are listed above
        raise DataError(str(error).splitlines()[0]) from error


@app.command()
def train(
    data: Data,
    out: Out,
    overwrite: Overwrite = False,
    preset: Annotated[str | None, typer.Option(help="Loss and settings, by name.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    seed: Seed = 0,
    fmr: Annotated[float, typer.Option(help="False-match rate to aim the threshold at.")] = 0.01,
    as_json: Json = False,
) -> None:
    """Learn an embedding from a folder of pictures."""
    if not 0 < fmr < 1:
        raise typer.BadParameter("expected a rate between 0 and 1, such as 0.01", param_hint="--fmr")
    from nearfar.app import training

    chosen = {name: value for name, value in {"preset": preset, "steps": steps}.items() if value is not None}
    options: dict[str, Any] = {"seed": seed, "fmr": fmr, "overwrite": overwrite, **chosen}
    _judge(training.train(data, out, **options), as_json)


@app.command()
def resume(run: Run, as_json: Json = False) -> None:
    """Continue an interrupted run exactly where it stopped."""
    from nearfar.app import training

    _judge(training.resume(run), as_json)


@app.command()
def evaluate(run: Run, data: Data, as_json: Json = False) -> None:
    """Report honestly how a run does on other data."""
    from nearfar.app import evaluation

    result = evaluation.evaluate(run, data)
    if as_json:
        print_json(result)
    else:
        print_table(evaluation_rows(result))


@app.command()
def verify(
    run: Run,
    a: Annotated[Path, typer.Argument(metavar="A", help="A picture.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another picture.")],
    as_json: Json = False,
) -> None:
    """Same or different? Exit code 0 for same, 1 for different."""
    from nearfar.app import model

    verdict = model.load(run).verify(a, b)
    if as_json:
        print_json(_plain(verdict))
    else:
        write(f"{'same' if verdict.same else 'different'}: {verdict.words}\n")
        fields = {key: value for key, value in _plain(verdict).items() if key not in ("same", "words")}
        print_table(rows(fields))
    raise typer.Exit(0 if verdict.same else 1)


@app.command()
def classify(
    run: Run,
    items: Annotated[list[Path], typer.Argument(metavar="ITEM...", help="Pictures.")],
    as_json: Json = False,
) -> None:
    """Name the class of each picture, or "unknown". Exit code 1 if one is unknown."""
    from nearfar.app import model

    loaded = model.load(run)
    answers: list[dict[str, Any]] = []
    code = 0
    for item in items:
        try:
            answer = loaded.classify(item)
        except DataError as error:  # the other pictures still get their answer
            _complain(str(error))
            answers.append({"path": str(item), "error": str(error)})
            code = error.exit_code
            continue
        answers.append({"path": str(item), **_plain(answer)})
        code = max(code, 1 if answer.label is None else 0)
    if as_json:
        print_json(answers)
    else:
        write("".join(f"{shown(answer['path'])}  {_answer_words(answer)}\n" for answer in answers))
    raise typer.Exit(code)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check versions and devices; take one training step."""
    from nearfar.app import doctor as job

    found = job.examine()
    if as_json:
        print_json(found)
    else:
        print_table(rows(found))
    if not found["ready"]:
        raise NearfarError("expected a working installation, got the faults listed; reinstall 'nearfar[app]'")


@app.command()
def bench(
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Case or group; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each library.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Small batches, one round: does it all run?")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
    as_json: Json = False,
) -> None:
    """Time the losses beside other libraries.

    Groups: table (the default), huge, small, growth. Cases: supcon-8192, clip-4096, supcon-growth, ...
    """
    from nearfar.app.progress import Reporter
    from nearfar.bench import bench as job
    from nearfar.bench import table

    report, titles = Reporter(), [""]

    def show(row: dict[str, Any]) -> None:
        report.stop()
        if titles[-1:] != [table.head(row)]:
            titles.append(table.head(row))
            write(titles[-1])
        write(table.line(row))

    with report:
        record = job(case or (), rounds, quick, out, overwrite, report.start, (lambda row: None) if as_json else show)
    if as_json:
        print_json(record)
    else:
        write(table.verdicts(record["rows"]) + table.LEGEND)


def main() -> None:
    """Run the command line; end the process with the exit code that the outcome means."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name never stops a message
    try:
        app(prog_name="nearfar")
    except NearfarError as error:
        _end(str(error), error.exit_code, error)
    except ModuleNotFoundError as error:
        if (error.name or "nearfar").partition(".")[0] == "nearfar":
            _end(f"internal: {error}", 70, error)
        _end(f"expected the package {error.name}, got none; run: pip install 'nearfar[app]'", 2, error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _end(f"internal: {type(error).__name__}: {error}; NEARFAR_DEBUG=1 shows where", 70, error)


def _end(message: str, code: int, error: Exception) -> None:
    """Say why and leave; where, only when asked."""
    if os.environ.get("NEARFAR_DEBUG") == "1":
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    _complain(message)
    sys.exit(code)


def _complain(message: str) -> None:
    """Write one error to standard error."""
    sys.stderr.write(f"error: {message}\n")


def _judge(run: Path, as_json: bool) -> None:
    """Judge a trained run on the classes kept for the test, and say where it lies and what to do with it."""
    from nearfar.app import evaluation

    result: dict[str, Any] | None = None
    try:
        result = evaluation.evaluate_run(run)
    finally:  # the run is there, whether its test classes can be judged or not
        if as_json:
            print_json({"run": str(run), "evaluation": result})
        else:
            print_table(evaluation_rows(result) if result else [])
            report = f"report  {run / 'report.html'}\n" if result else ""
            write(f"run     {run}\n{report}next    nearfar verify {run} A B\n")


def _scan(data: Path, report: Any) -> Any:
    """Read the data with a bar."""
    from nearfar.app.data import scan

    def step(done: int, total: int) -> None:
        if done == 1:
            report.start(0, total, "reading")
        report.advance()

    return scan(data, progress=step)


def _plain(result: Any) -> dict[str, Any]:
    """The fields of a result."""
    return dataclasses.asdict(result)


def _answer_words(answer: dict[str, Any]) -> str:
    """One line about one picture."""
    if "error" in answer:
        return "not readable"
    return f"{'unknown' if answer['label'] is None else answer['label']}: {answer['words']}"
