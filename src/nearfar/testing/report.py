"""What ``check_loss`` found, cell by cell, and how it prints."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

WIDTH = 80
PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Finding:
    """One check in one cell.

    Attributes:
        check: Its name.
        library: The array library.
        dtype: The dtype.
        verdict: ``"passed"``, ``"failed"`` or ``"not applicable"``.
        text: What was expected and what was found, or why the check does not apply.
    """

    check: str
    library: str
    dtype: str
    verdict: str
    text: str = ""


@dataclass(frozen=True)
class Report:
    """All findings on a loss; ``str`` of it is a table of at most 80 columns."""

    loss: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> tuple[Finding, ...]:
        """Checks that passed."""
        return self._with(PASSED)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Checks that failed."""
        return self._with(FAILED)

    @property
    def not_applicable(self) -> tuple[Finding, ...]:
        """Checks that say nothing about this loss, and libraries that are not here, with the reason."""
        return self._with(NOT_APPLICABLE)

    def __str__(self) -> str:
        """One line a check, one column a library; reasons below."""
        libraries = list(dict.fromkeys(f.library for f in self.findings))
        checks = list(dict.fromkeys(f.check for f in self.findings if f.check))
        wide = max([len(c) for c in checks] + [5])
        columns = {name: max(7, len(name)) for name in libraries}
        lines = [textwrap.shorten(self.loss, WIDTH, placeholder="…")]
        lines.append(f"{'check':{wide}}" + "".join(f"  {name:>{columns[name]}}" for name in libraries))
        for check in checks:
            cells = [f"  {self._cell(check, name):>{columns[name]}}" for name in libraries]
            lines.append(f"{check:{wide}}" + "".join(cells))
        lines.append(f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.not_applicable)} not applicable")
        lines += [folded(f"{f.check} ({f.library} {f.dtype}): {f.text}") for f in self.failed]
        reasons: dict[str, list[str]] = {}
        for finding in self.not_applicable:
            reasons.setdefault(finding.text, []).append(finding.check)
        for why, found in reasons.items():
            names = list(dict.fromkeys(found))
            lines.append(
                folded(f"not applicable: {', '.join(names) if len(names) < 4 else f'{len(names)} checks'}: {why}")
            )
        return "\n".join(lines)

    def _with(self, verdict: str) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.verdict == verdict)

    def _cell(self, check: str, library: str) -> str:
        """How many dtypes passed, of how many it applies to."""
        mine = [f for f in self.findings if (f.check, f.library) == (check, library) and f.verdict != NOT_APPLICABLE]
        good = sum(f.verdict == PASSED for f in mine)
        return "–" if not mine else str(good) if good == len(mine) else f"{good} of {len(mine)}"


def folded(text: str) -> str:
    """A text in lines of at most 80 columns, indented."""
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
