"""The parts of `experiments/benchmark.py`: who is timed, and how."""
