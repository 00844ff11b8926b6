"""Procedures: each module's `run(config, workdir)` is one, listed in `run.py`."""
