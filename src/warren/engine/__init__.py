"""Engines: what turns a specification into a running micro-container (`warren.contracts.engine`)."""
