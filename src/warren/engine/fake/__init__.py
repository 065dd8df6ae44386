"""An engine in memory: the reference for the contract suite, and the engine of tests that need no sandbox."""
