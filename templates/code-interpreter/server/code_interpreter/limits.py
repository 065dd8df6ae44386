"""Every limit of the server, with its unit and reason."""

PORT = 49999
"""Where clients look for it (wire contract 4.1)."""
KEEPALIVE_S = 5.0
"""Of silence, after which the client is told that the execution goes on."""
LOOK_S = 0.5
"""Between two looks whether a silent kernel is alive."""
BODY_MAX = 32 * 1024 * 1024
"""Bytes of a request: the code of one execution."""
LINE_MAX = 64 * 1024 * 1024
"""Bytes of one result; a larger one is named, not sent."""
TEXT_MAX = 1024 * 1024
"""Characters of output in one line of the answer; more go into the next."""
CONTEXTS_MAX = 64
"""Each is a process or two of its own."""
WAITING_MAX = 64
"""Executions that wait for their turn in one context."""
MESSAGES_MAX = 20_000
"""Of a kernel's output, kept for a client that reads slowly; more are lost, never the end of the execution."""
ENVS_MAX = 1024 * 1024
"""Bytes of the sandbox's environment."""
START_DEADLINE_S = 60.0
"""For a kernel: Java and R take seconds, on a busy machine many."""
ENVS_DEADLINE_S = 5.0
LAST_WORDS_S = 10.0
"""Of silence from a kernel that has ended the execution: then its last words are taken for lost."""
REPLY_DEADLINE_S = 2.0
"""From a kernel's last words to its reply."""
ASIDE_DEADLINE_S = 10.0
"""For what is run between executions: environment, random numbers."""
INTERRUPT_EVERY_S = 1.0
INTERRUPT_DEADLINE_S = 6.0
"""Code that does not heed interrupts loses its kernel then: the next call in the context must not wait for it."""
SUPERVISION_S = 1.0
"""Between two looks whether idle kernels are alive."""
STOP_DEADLINE_S = 5.0
