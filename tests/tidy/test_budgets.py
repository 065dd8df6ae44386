"""Sizes. A module that outgrows them knows two things; a function that does is two functions."""

from statistics import median, quantiles

from tests.tidy import tree

MODULE_LINES = 500
FUNCTION_LINES = 70
FUNCTION_P90 = 35
MEDIAN_MODULE = 130
USUAL_MODULE = 250
USUAL_SHARE = 0.8


def test_no_module_is_longer_than_500_lines() -> None:
    long = [
        f"{path} has {tree.lines(path)}" for path in [*tree.python(), *tree.go()] if tree.lines(path) > MODULE_LINES
    ]
    assert not long, f"split by noun, one thing known per module: {long}"


def test_no_function_is_longer_than_70_lines() -> None:
    functions = [function for path in tree.python() for function in tree.python_functions(path)]
    functions += [function for path in tree.go() for function in tree.go_functions(path)]
    long = [str(function) for function in functions if function.lines > FUNCTION_LINES]
    assert not long, f"keep the ifs in the parent and the work in the children: {long}"


def test_most_functions_fit_one_screen() -> None:
    lengths = [function.lines for path in tree.python("src/") for function in tree.python_functions(path)]
    assert quantiles(lengths, n=10)[-1] <= FUNCTION_P90


def test_most_modules_are_small() -> None:
    lengths = [tree.lines(path) for path in tree.python("src/warren/") if tree.lines(path)]
    assert median(lengths) <= MEDIAN_MODULE
    small = sum(length <= USUAL_MODULE for length in lengths)
    assert small / len(lengths) >= USUAL_SHARE
