"""The parts of `experiments/budget.py`: what may be chosen, how, and what to say."""
