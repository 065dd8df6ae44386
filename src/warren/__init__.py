"""Warren: AI agents and the code they write, in micro-containers on your own machine."""

__version__ = "0.1.0"
