"""The product under crashes and chance: `make chaos`. Nothing in here is collected by `make test`."""
