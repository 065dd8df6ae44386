module warren.dev/probes

go 1.26.0
