"""Makes a model smaller and faster, and proves that it still works.

python run.py --config=configs/quickstart.py --workdir=/tmp/quickstart
python run.py --config=configs/quickstart.py:smoke --workdir=/tmp/smoke
python run.py --config=... --config.prune.sparsity=0.95   (any setting)
"""

import os
import pathlib
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import command_line
from lib import errors
from lib.train import interrupt

ROOT = pathlib.Path(__file__).parent

EXPERIMENTS = {
    "compress": "train, compress, pack and prove a model, stage by stage",
    "benchmark": "time the training step against a hand-written loop and against peers",
    "damage": "tell which classes and examples got worse by compression",
    "diagnose": "tell whether a stage overfits or underfits, and what to try",
    "deployment": "time files of integers against files of floats, in their runtimes",
    "benchmark_loader": "time the training step on streamed images and on held ones",
    "benchmark_shrink": "time a network with channels removed beside the whole one",
    "benchmark_ptq": "quantize after training beside other libraries' ways to do it",
    "cross_validate": "train one stage on every fold of the data, side by side",
    "budget": "choose bits and sparsity of each layer within bytes and points",
    "contact_sheet": "draw what each augmentation makes of a training image",
    "evaluate": "measure packed artifacts: accuracy, bytes, MACs, latency",
    "export": "write a stage as ONNX files, and measure them in ONNX Runtime",
    "feature_curve": "train on more and more features of a table; draw accuracy",
    "inspect": "show what of a packed artifact takes how many bytes",
    "reproduce": "run papers' configs over seeds and set them beside their claims",
    "sensitivity": "tell which layers mind sparsity, few bits and low rank",
    "stop_words": "train with and without stop words; tell what it cost or gained",
    "sweep": "train one stage at every setting of a grid, in one compiled program",
    "tune": "search the fields of a config for the best run, with many workers",
}

LEAVES_NOTHING = {"inspect"}  # and needs no --workdir

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment to run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder for all that it leaves.")


def main(argv):
    """Runs the experiment that the config names."""
    if len(argv) > 1:
        raise errors.UserError(f"unexpected argument {argv[1]!r}; flags begin with --")
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if name == "workdir" and _CONFIG.value.experiment in LEAVES_NOTHING:
            continue
        if value is None:
            raise errors.UserError(f"--{name} is missing; see python run.py --help")
    if not flags.FLAGS["verbosity"].present:
        # Orbax and TFDS tell much; what goes wrong there is raised as well.
        logging.set_verbosity(logging.FATAL)
    if _CONFIG.value.xla_flags:
        flags_before = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags_before} {_CONFIG.value.xla_flags}".strip()
    # Only now: --help must not wait for JAX, and JAX reads XLA_FLAGS as it starts.
    from experiments import (
        benchmark,
        benchmark_loader,
        benchmark_ptq,
        benchmark_shrink,
        budget,
        compress,
        contact_sheet,
        cross_validate,
        damage,
        deployment,
        diagnose,
        evaluate,
        export,
        feature_curve,
        inspect,
        reproduce,
        sensitivity,
        stop_words,
        sweep,
        tune,
    )

    run = {
        "benchmark": benchmark.run,
        "benchmark_loader": benchmark_loader.run,
        "benchmark_shrink": benchmark_shrink.run,
        "benchmark_ptq": benchmark_ptq.run,
        "budget": budget.run,
        "compress": compress.run,
        "contact_sheet": contact_sheet.run,
        "cross_validate": cross_validate.run,
        "damage": damage.run,
        "deployment": deployment.run,
        "diagnose": diagnose.run,
        "evaluate": evaluate.run,
        "export": export.run,
        "feature_curve": feature_curve.run,
        "inspect": inspect.run,
        "reproduce": reproduce.run,
        "sensitivity": sensitivity.run,
        "stop_words": stop_words.run,
        "sweep": sweep.run,
        "tune": tune.run,
    }
    errors.lookup(run, _CONFIG.value.experiment, "experiment")(
        _CONFIG.value, _WORKDIR.value
    )


def usage():
    """Returns the text of --help: what to run, and on what."""
    lines = [__doc__, "experiments:"]
    lines += [f"  {name:<17}{what}" for name, what in EXPERIMENTS.items()]
    lines.append("\nconfigs:")
    for path in command_line.configs():
        first = path.read_text(encoding="utf-8").split('"""')[1].split("\n")[0]
        lines.append(f"  {path.relative_to(ROOT)}: {first}")
    lines.append("\nflags:\n  --config=FILE.py[:variant]\n  --workdir=DIR")
    lines.append("  --config.KEY=VALUE overrides a setting; --helpfull lists all flags")
    return "\n".join(lines)


def parse(argv):
    """Parses flags and config; a mistake in them is one line and exit code 2."""
    try:
        command_line.check_config(argv)
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as e:
        fail(command_line.explain(argv, e))


def fail(error):
    """Prints one line and exits with code 2: the user can mend it."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(2)


def guarded(argv):
    """Runs `main` with the errors a user can mend told in one line."""
    try:
        with interrupt.at_once():
            main(argv)
    except errors.UserError as e:
        fail(e)
    except errors.RunError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
    except interrupt.Interrupted as e:
        print(f"stopped: {e.message}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("stopped: by the keyboard; what is saved is kept", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    if any(a in ("--help", "-help", "-h", "--helpshort") for a in sys.argv[1:]):
        print(usage())
        sys.exit(0)
    app.run(guarded, flags_parser=parse)
