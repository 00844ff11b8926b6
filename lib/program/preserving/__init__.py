"""Changes of weights that keep what a program computes, found by following it.

Norms are folded, ranges equalized and activations smoothed wherever the values between
two contractions let a factor through; nothing is found by its name.
"""
