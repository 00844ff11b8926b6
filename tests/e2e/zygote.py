"""Runs command lines of `run.py` in forks of a process that has imported everything.

    python -m tests.e2e.zygote

Reads `[[argument, ...], folder]` as a line of JSON, leaves `stdout` and `stderr` in the
folder, and answers with the exit status. Importing JAX and all the rest is most of what
a refused command costs. JAX itself starts in the fork, as each command has its flags.
"""

import json
import os
import pathlib
import runpy
import sys
import traceback
import warnings

ROOT = pathlib.Path(__file__).parents[2]


def main():
    import sklearn.datasets  # noqa: F401

    from experiments import compress, evaluate, tune  # noqa: F401

    for line in sys.stdin:
        argv, folder = json.loads(line)
        with warnings.catch_warnings():  # JAX has started no thread yet
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            child = os.fork()
        if not child:
            os._exit(_run(argv, pathlib.Path(folder)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(argv, folder):
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = argv
    try:
        runpy.run_path(argv[0], run_name="__main__")
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
