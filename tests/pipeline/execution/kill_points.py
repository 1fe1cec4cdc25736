"""A process that kills itself at a named point of its work on the disk.

Points lie before and after each write, in the middle of it, and before and after each sync, rename,
link and removal. Run as a script it does one thing after the other that it is told on its standard
input, each in a child of its own, so that only one process pays for the imports; or preprocesses as
its argument says. Worker processes that are started by spawning run the top of this file too.
"""

import functools
import hashlib
import importlib
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

CALLS = ("fsync", "rename", "replace", "link", "unlink", "rmdir")
ENDS = "LUMBAR_ENDS_AT"
"""Where worker processes end: a JSON object of the arguments of `watch`."""


def left_behind(root):
    """Return a hash of all files and folders; of names by chance only the rest counts."""
    total = hashlib.sha256()
    for path in sorted(Path(root).rglob("*")):
        name = re.sub(r"([.+])[0-9a-f]{8}(?=[/+]|$)|[.][0-9]+$", r"\1", str(path))
        content = path.read_bytes() if path.is_file() and path.name != ".lock" else b"-"
        total.update(f"{name}|{path.is_dir()}|".encode() + hashlib.sha256(content).digest())
    return total.hexdigest()


class Points:
    """Counts points below a folder, and ends the process at one of them, told by number or name.

    ``names`` are those of the points, ``states`` what each of them would leave behind.
    """

    def __init__(self, root, end_at=None, once=None):
        self.root, self.end_at, self.once = os.path.realpath(root), end_at, once
        self.names, self.states = [], []

    def reach(self, name):
        if self.end_at in {len(self.names), name} and self.may_end():
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)
        self.states.append(left_behind(self.root) if self.end_at is None else "")

    def may_end(self):
        """Tell whether this is the first process to end, where only one is to."""
        if self.once is None:
            return True
        try:
            os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def is_below(self, path):
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        return os.path.realpath(path).startswith(self.root)


def watch(root, end_at=None, once=None):
    """Put points around all that is done to the files below a folder, in this process."""
    points = Points(root, end_at, once)
    for name in CALLS:
        setattr(os, name, with_points(points, name, getattr(os, name)))
    io.open = with_points_of_writes(points, io.open)
    return points


def with_points(points, name, call):
    @functools.wraps(call)
    def watched(path, *arguments, dir_fd=None, **options):
        made = arguments[0] if name == "link" else path
        place = made if dir_fd is None else f"/proc/self/fd/{dir_fd}"
        options = options if dir_fd is None else options | {"dir_fd": dir_fd}
        if not points.is_below(place):
            return call(path, *arguments, **options)
        shown = "" if isinstance(path, int) else f" {Path(made).name}"
        points.reach(f"before {name}{shown}")
        result = call(path, *arguments, **options)
        points.reach(f"after {name}{shown}")
        return result

    return watched


def with_points_of_writes(points, genuine):
    @functools.wraps(genuine)
    def opened(path, mode="r", *arguments, **options):
        file = genuine(path, mode, *arguments, **options)
        if "w" not in mode or not points.is_below(path):
            return file
        return WithPoints(file, points, Path(path).name)

    return opened


class WithPoints:
    """A file that is open for writing."""

    def __init__(self, file, points, name):
        self._file, self._points, self._name = file, points, name

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def write(self, data):
        data = memoryview(data).cast("B")
        self._points.reach(f"before write {self._name}")
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._points.reach(f"in write {self._name}")
        self._file.write(data[len(data) // 2 :])
        self._file.flush()
        self._points.reach(f"after write {self._name}")
        return len(data)


def preprocess(out, src, config, workers=0):
    from lumbar.pipeline.preprocess import PreprocessConfig, preprocess  # noqa: PLC0415

    config = PreprocessConfig.model_validate(config)
    for _ in preprocess(Path(src), Path(out), config, workers=workers):
        pass


def merge(out, shards):
    from lumbar.pipeline.maintenance.merge import merge  # noqa: PLC0415

    for _ in merge(Path(out), list(map(Path, shards))):
        pass


def convert(out, src, profile):
    from lumbar.pipeline.maintenance.convert_profile import reprofile  # noqa: PLC0415

    for _ in reprofile(Path(src), Path(out), profile, workers=0):
        pass


def repair(out, src):
    from lumbar.pipeline.maintenance.repair import find_problems, repair  # noqa: PLC0415

    problems = find_problems(Path(out))
    if problems:
        for _ in repair(Path(out), Path(src), problems, workers=0):
            pass


ACTIONS = {"preprocess": preprocess, "merge": merge, "convert": convert, "repair": repair}


def serve():
    """Do what each line says, in a child; answer with its status and its points."""
    for name in (
        "lumbar.pipeline.maintenance.repair",
        "lumbar.pipeline.maintenance.merge",
        "lumbar.pipeline.maintenance.convert_profile",
    ):
        importlib.import_module(name)
    for name in ("numpy.ma", "polars._utils.parquet"):  # what each child would else import
        importlib.import_module(name)
    for line in sys.stdin:
        said = json.loads(line)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            points = watch(said["options"]["out"], said["end_at"])
            ACTIONS[said["action"]](**said["options"])
            with os.fdopen(writing, "w") as file:
                json.dump([points.names, points.states], file)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            names = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps([status, json.loads(names or "null")]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        preprocess(**json.loads(sys.argv[1]))
    else:
        serve()
elif ENDS in os.environ:
    watch(**json.loads(os.environ[ENDS]))
