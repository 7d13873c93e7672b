"""Every module of the package has its unit test, such as `policy/test_auth.py` here for
`policy/auth.py` there."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
PACKAGE = UNIT.parents[1] / "ollama_proxy"


def mirrored(module: Path) -> Path:
    """Where the unit test of a module belongs."""
    return UNIT / module.relative_to(PACKAGE).with_name(f"test_{module.name}")


# What the `__init__` of a package has to say is said by its modules, and what its
# `__main__` does is to call one.
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__")
)


@pytest.mark.parametrize("module", [str(path.relative_to(PACKAGE)) for path in MODULES])
def test_module_has_its_unit_test(module: str) -> None:
    assert mirrored(PACKAGE / module).is_file(), (
        f"{module} needs {mirrored(PACKAGE / module).relative_to(UNIT)}"
    )
