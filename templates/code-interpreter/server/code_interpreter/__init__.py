"""The code interpreter's server: Jupyter kernels behind port 49999 of a sandbox (wire contract 4)."""
