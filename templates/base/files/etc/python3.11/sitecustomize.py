# Loaded by every Python of this system, also in virtual environments (docs/reference/fork.md).
#
# A copy of this sandbox goes on with the same memory, so with the same random numbers to come. The guest daemon sends
# SIGURG to every process of a copy; whoever does not handle it never notices. `_signal` is built in: importing it
# costs nothing, where `signal` would cost every start of Python two milliseconds.
import _signal
import sys


def _reseed(_number, _frame):
    modules = sys.modules
    for name in ("random", "numpy.random"):
        module = modules.get(name)
        if module is not None:
            try:
                module.seed()  # from the kernel's entropy, which is a copy's own
            except Exception:  # noqa: S110 - a module of that name which is another one
                pass
    if "_ssl" in modules:
        import os

        modules["_ssl"].RAND_add(os.urandom(64), 64.0)  # OpenSSL mixes it in before its next number


try:
    _signal.signal(_signal.SIGURG, _reseed)
except (OSError, ValueError):  # not the main thread of the main interpreter
    pass
