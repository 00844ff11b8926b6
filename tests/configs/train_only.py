"""Trains the stages of several configs in one process; nothing is measured after.

    python -m tests.configs.train_only FOLDER configs/techniques/rigl.py ...

Starting Python, importing JAX and measuring in a fresh process is most of what a smoke
run costs, and is the same for each technique.
"""

import importlib.util
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]


def main(folder, *paths):
    from configs import common

    os.environ["XLA_FLAGS"] = common.FAST_TO_COMPILE
    from experiments import check, recipe, stage, workdir
    from lib.report import metrics

    for path in paths:
        spec = importlib.util.spec_from_file_location("config_file", ROOT / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config("smoke")
        check.settings(config)
        data = recipe.load_data(config.data)
        stages = check.stages(config, data)
        at = workdir.claim(pathlib.Path(folder) / pathlib.Path(path).stem, config)
        with metrics.MetricsWriter(at) as writer:
            for one in stages:
                stage.train(config, data, one, at, writer, lambda: False)
        print(f"trained {path}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(*sys.argv[1:])
