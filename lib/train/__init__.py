"""Training: one step for every technique, run over all devices, killable anywhere."""
