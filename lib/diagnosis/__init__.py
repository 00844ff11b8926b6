"""What predictions say about a model: bias and variance, fit, damage, certainty.

Pure functions of arrays on the host. They know of no model, data set or technique:
whoever trains and predicts hands over logits and labels.
"""
