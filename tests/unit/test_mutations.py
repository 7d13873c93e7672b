"""The list of mutations fits the product and the suites as they are."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mutations import PROJECT, TIERS, Mutation, pytest_arguments, read_mutations


def find_problems(mutation: Mutation) -> Iterator[str]:
    """Yield what is wrong with an entry of the list."""
    source = (PROJECT / mutation.file).read_text()
    try:
        wrong = mutation.apply(source)
        if mutation.file.endswith(".py"):
            compile(wrong, mutation.file, "exec")
        pytest_arguments(mutation.tests)
    except (ValueError, SyntaxError) as problem:
        yield f"{mutation.id}: {problem}"
    if mutation.text == mutation.wrong or mutation.tier not in TIERS:
        yield f"{mutation.id}: changes nothing, or has no tier"


def test_each_mutation_can_be_applied_and_has_tests() -> None:
    mutations = read_mutations()
    assert len(mutations) >= 80
    assert [problem for each in mutations for problem in find_problems(each)] == []
