"""The data plane: finds the sandbox behind a request and relays bytes to and from it."""
