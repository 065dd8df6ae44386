"""REST: decode and validate, call one use case, encode. Transport facts live here and nowhere below."""
