"""The contract of a loss as checks that anyone's loss can be put to.

:func:`check_loss` runs every check of ``check.CHECKS`` on a loss in every *cell*, library × dtype. A check is a
function of a loss and a cell that raises AssertionError, or ``NotApplicable`` with the reason. One file holds the
checks of one kind: ``derivatives``, ``agreement`` (libraries, dtypes, strips), ``laws``, ``degenerate`` (on the batches
of ``batches``), ``inputs``, ``objects``.

To add a check, write the function and list it in ``check.CHECKS``. To add an array library, write its adapter and list
it in ``libraries.LIBRARIES``. To add a way of calling losses, write a form in ``forms``.

No framework is imported before a check asks for its arrays, and none of the checks before a loss is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.testing.report import Report


def check_loss(
    loss: Any,
    libraries: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    surrogate: Callable[..., Any] | bool = False,
) -> Report:
    r"""Check that a loss does what every loss of nearfar does: the suite that nearfar's own losses pass.

    A *cell* is a library and a dtype. In each cell the checks are laws that need no second formula: the weights are
    the derivative of the value (differences in float64, extrapolated); every strip height, library and dtype agrees
    with NumPy in float64; order and names of the items mean nothing; Σ g = 0, ⟨x, g⟩ = 0 and Σ (x gᵀ − g xᵀ) = 0 as
    the measure has it; degenerate batches give no NaN, no Inf and no gradient that the value does not have; NaN
    reaches the value; nothing is kept, changed or drawn; what cannot be used is refused by name. How far a cell may
    be off is measured: what one unit of rounding of embeddings and measures does to the loss, 64 times.

    Args:
        loss: A loss: of a subclass of :class:`nearfar.PairLoss` or :class:`nearfar.FeatureLoss`, or a combination.
        libraries: Names, of ``"numpy"``, ``"torch"``, ``"jax"`` and Keras's backends; None for all that are here. JAX
            takes a minute or more, since it compiles every shape. The derivative is checked on NumPy: leave that in.
        dtypes: Names, of ``"float64"``, ``"float32"``, ``"bfloat16"``, ``"float16"``; None for all.
        seed: Of the ordinary batches.
        surrogate: For a loss whose gradient holds a part of its value constant: the value that the gradient belongs
            to, ``surrogate(moved, batch)``, its constant part at ``batch`` (each with ``arrays`` and ``labels``); or
            True, and the checks of the derivative do not apply.

    Returns:
        The report: which checks passed, and which do not apply and why. ``print`` it.

    Raises:
        CheckError: A check failed; the message names each, and ``report`` on it holds all findings.
        InputError: Not a loss, or a library or dtype that is not known or not here.

    Example:
        >>> import nearfar as nf
        >>> report = nf.check_loss(nf.SupConLoss(temperature=0.5), libraries=["numpy"], dtypes=["float64"])
        >>> len(report.failed)
        0

    Memory: some 2,100 × 2,100 tables in float64, for losses with a faster way for large batches.

    Reference:
        The laws are written down in docs/new_loss.md.
    """
    from nearfar.testing.check import checked

    return checked(loss, libraries, dtypes, seed, surrogate)


__all__ = ["check_loss"]
