"""An import that points up breaks a contract, under TYPE_CHECKING too: the contracts know the insides of packages."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services/controller/src/proctor_controller"
IN_OPEN = "from proctor_controller.engine.engine import Engine\n"
HIDDEN = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {IN_OPEN}"


def settings() -> str:
    """Those of the repository, for the layers of the controller alone: fewer packages to read."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    lines = [
        "[tool.importlinter]",
        'root_packages = ["proctor_controller"]',
        f"exclude_type_checking_imports = {json.dumps(linter['exclude_type_checking_imports'])}",
    ]
    for contract in linter["contracts"]:
        if contract["type"] == "layers" and contract.get("containers", [""])[0].startswith("proctor_controller"):
            lines += ["[[tool.importlinter.contracts]]", *(f"{key} = {json.dumps(contract[key])}" for key in contract)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("upward", "kept"), [("", True), (IN_OPEN, False), (HIDDEN, False)], ids=["none", "open", "type checking"]
)
def test_an_import_that_points_up_breaks_a_contract(tmp_path: Path, upward: str, kept: bool) -> None:
    shutil.copytree(PACKAGE, tmp_path / "proctor_controller", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "proctor_controller/engine/orders.py").open("a") as source:
        source.write(upward)
    config = tmp_path / "contracts.toml"
    config.write_text(settings())
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--config", config, "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is kept, done.stdout + done.stderr
    assert ("proctor_controller.engine.orders is not allowed to import" in done.stdout) is not kept, done.stdout
