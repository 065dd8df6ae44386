"""The seams: what the use cases ask of an engine, a store, a guest and a clock."""
