"""Contractions on integers: the codes that a rounded program multiplies, as int8."""
