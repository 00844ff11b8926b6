"""The parts of `experiments/tune.py`: what is searched, how, and by which workers."""
