"""The engine of this machine: OCI bundles, run by runsc or crun, on network slots of one bridge."""
