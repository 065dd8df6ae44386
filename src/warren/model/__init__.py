"""Nouns and rules, without I/O, clock, randomness or environment."""
