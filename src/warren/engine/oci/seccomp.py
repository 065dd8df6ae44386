"""placeholder"""
def profile() -> dict[str, object]:
    return {}
