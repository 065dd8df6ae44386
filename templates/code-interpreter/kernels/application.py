"""What our kernels have in common."""

import sys
from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp

MESSAGES_MAX = 100_000
"""Of output that the server has not taken yet; a thousand, as is usual, are soon lost to a loop that prints."""


class Application(IPKernelApp):
    def init_iopub(self, context: Any) -> None:
        context.setsockopt(zmq.SNDHWM, MESSAGES_MAX)
        super().init_iopub(context)


def leave_folder() -> None:
    """Imports of user code are looked up in the working directory, as in any kernel, not in this folder."""
    sys.path[0] = ""
