"""The verbs of the application, from Python."""

import subprocess
import sys

import pytest

import nearfar as nf


def test_verbs_are_the_functions():
    from nearfar.app.evaluation import evaluate
    from nearfar.app.model import load
    from nearfar.app.training import resume, train

    assert (nf.app.train, nf.app.resume, nf.app.load, nf.app.evaluate) == (train, resume, load, evaluate)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = nf.app.trian


def test_a_missing_extra_is_named():
    code = (
        "import sys; sys.modules['accelerate'] = None\n"
        "import nearfar as nf\n"
        "try:\n    nf.app.train\nexcept nf.UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "expected the package accelerate, got none; run: pip install 'nearfar[app]'" in done.stdout
