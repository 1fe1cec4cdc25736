"""What the whole suite shares.

Settings of Hypothesis, the command line, and the folder of real DICOM.
"""

import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import settings

from lumbar import cli

pytest_plugins = ["fixtures.cache", "fixtures.network", "fixtures.train"]

os.environ.setdefault("MPLBACKEND", "Agg")

if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # Nothing is written beside the sources, as was asked for. Without any byte code each process
    # that a test starts would compile torch and everything else anew, for seconds.
    sys.pycache_prefix = tempfile.mkdtemp(prefix="lumbar-bytecode-")
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def command_line():
    """A function that runs ``lumbar`` with arguments in this process: status, out and err."""

    def run(*arguments):
        out, err, status = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["lumbar", *map(str, arguments)]),
        ):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture(scope="session")
def real_dicom():
    """The folder that LUMBAR_DICOM names: real series, which no repository may hold."""
    named = os.environ.get("LUMBAR_DICOM")
    if not named:
        pytest.skip("real DICOM is not part of the repository: LUMBAR_DICOM names its folder")
    folder = Path(named)
    assert folder.is_dir(), f"LUMBAR_DICOM names no folder: {folder}"
    return folder
