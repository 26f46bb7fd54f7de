"""Every check on a loss, in every cell that is here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nearfar._errors import CheckError, InputError
from nearfar.testing import agreement, degenerate, derivatives, inputs, laws, objects
from nearfar.testing.cells import Cell, Reference
from nearfar.testing.forms import NotApplicable
from nearfar.testing.libraries import DTYPES, LIBRARIES, Library
from nearfar.testing.report import FAILED, NOT_APPLICABLE, PASSED, Finding, Report

Function: TypeAlias = Callable[[Any, Cell], None]


@dataclass(frozen=True)
class Check:
    """A check and the cells it is run in.

    Attributes:
        function: Of a loss and a cell; raises AssertionError with what was expected and what was found.
        dtypes: Those it is run in.
        once: Whether it is run on NumPy alone, since the loss is at stake and no array.
        many_shapes: Whether it takes many, each of which some libraries compile: there, float32 stands for the rest.
    """

    function: Function
    dtypes: tuple[str, ...] = DTYPES
    once: bool = False
    many_shapes: bool = False

    @property
    def name(self) -> str:
        """The function's, in words."""
        return self.function.__name__.replace("_", " ")


EXACT = ("float64",)
CHECKS = (
    Check(objects.is_frozen, EXACT, once=True),
    Check(objects.copies_are_equal, EXACT, once=True),
    Check(objects.reads_back, EXACT, once=True),
    Check(objects.refuses_the_other_kind_of_measure, EXACT, once=True),
    Check(derivatives.weights_are_the_derivative, EXACT, once=True),
    Check(degenerate.gradients_keep_their_promise, EXACT, once=True),
    Check(agreement.large_batches, EXACT, once=True),
    Check(agreement.equals_the_reference),
    Check(agreement.returns_what_it_got),
    Check(agreement.any_strip_height, many_shapes=True),
    Check(agreement.per_anchor_makes_the_mean, many_shapes=True),
    Check(laws.order_means_nothing),
    Check(laws.names_mean_nothing),
    Check(laws.unknown_items_add_nothing, many_shapes=True),
    Check(laws.turning_changes_nothing),
    Check(laws.moving_changes_nothing),
    Check(laws.size_means_nothing),
    Check(degenerate.sizes, many_shapes=True),
    Check(degenerate.labels, many_shapes=True),
    Check(degenerate.geometry),
    Check(degenerate.magnitude),
    Check(degenerate.bad_values_reach_the_value),
    Check(inputs.leaves_inputs_alone),
    Check(inputs.same_input_same_bits),
    Check(inputs.other_defaults_mean_nothing, EXACT),
    Check(inputs.layout_means_nothing, EXACT),
    Check(inputs.any_kind_of_label, EXACT),
    Check(inputs.refuses_what_is_no_label, EXACT),
    Check(inputs.refuses_what_is_no_batch, EXACT),
)


def checked(
    loss: Any,
    libraries: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    seed: int,
    surrogate: Callable[..., Any] | bool,
) -> Report:
    """As of :func:`nearfar.check_loss`."""
    chosen = _libraries(libraries)
    wanted = tuple(dtypes or DTYPES)
    if not set(wanted) <= set(DTYPES):
        raise InputError(
            f"expected dtypes among {', '.join(DTYPES)}, got {', '.join(wanted)}; leave dtypes out for all"
        )
    reference = Reference(loss, seed, surrogate)
    report = Report(repr(loss), tuple(findings(loss, reference, chosen, wanted)))
    if report.failed:
        raise CheckError(_message(report), report)
    return report


def _libraries(names: Sequence[str] | None) -> list[str]:
    """Those asked for, or those that are here."""
    if names is None:
        return [name for name, library in LIBRARIES.items() if library.missing() is None]
    if isinstance(names, str) or not names or not set(names) <= set(LIBRARIES):
        known = ", ".join(LIBRARIES)
        raise InputError(
            f"expected a list of libraries among {known}, got {names!r}; leave it out for all that are here"
        )
    for name in names:
        reason = LIBRARIES[name].missing()
        if reason:
            raise InputError(f"expected {name} to be here, got that {reason}; install it or leave it out")
    return list(names)


def planned(libraries: Sequence[str], dtypes: Sequence[str] = DTYPES) -> Iterator[tuple[Check, Library, str]]:
    """Every check in every cell; those of the loss alone on NumPy, where NumPy is among the libraries."""
    for check in CHECKS:
        for name in libraries:
            for dtype in dtypes:
                if dtype in check.dtypes and not (check.once and name != "numpy"):
                    yield check, LIBRARIES[name], dtype


def findings(loss: Any, reference: Reference, libraries: Sequence[str], dtypes: Sequence[str]) -> Iterator[Finding]:
    """What each planned check finds."""
    for check, library, dtype in planned(libraries, dtypes):
        reason = None
        if dtype not in library.dtypes:
            reason = f"{library.name} has no {dtype}"
        elif check.many_shapes and library.compiles and dtype != "float32":
            reason = f"{library.name} compiles every shape; float32 stands for the other dtypes"
        if reason:
            yield Finding(check.name, library.name, dtype, NOT_APPLICABLE, reason)
        else:
            yield _finding(check, loss, Cell(library, dtype, reference))


def _finding(check: Check, loss: Any, cell: Cell) -> Finding:
    """One check in one cell; an exception of the loss's own is a failure like any other."""
    where = check.name, cell.library.name, cell.dtype
    try:
        with cell.library.session(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check.function(loss, cell)
    except NotApplicable as reason:
        return Finding(*where, NOT_APPLICABLE, str(reason))
    except AssertionError as failure:
        return Finding(*where, FAILED, str(failure))
    except Exception as error:
        return Finding(*where, FAILED, f"expected a value, got {type(error).__name__}: {error}")
    return Finding(*where, PASSED)


def _message(report: Report) -> str:
    cells: dict[str, list[Finding]] = {}
    for finding in report.failed:
        cells.setdefault(finding.check, []).append(finding)
    texts = "\n".join(
        f"- {check} ({', '.join(f'{f.library} {f.dtype}' for f in found)}): {found[0].text}"
        for check, found in cells.items()
    )
    return (
        f"expected {report.loss} to pass every check, got {len(report.failed)} failures of {len(report.findings)} "
        f"({', '.join(cells)}); mend what each says:\n{texts}"
    )
