"""The command line: exit codes, files, what is said about wrong commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pinnkit as pk
from pinnkit.cli import main
from pinnkit.driver import load

FILE = """
import pinnkit as pk
T = pk.coords("t")
y = pk.field("y", T)

@pk.problem
class Decay(pk.ProblemClass):
    '''y' = -k y.'''
    k: float = 1.0
    def declare(self):
        return pk.PDESystem([y.diff(T) + self.k * y], domain=pk.Interval(T, 0, 1),
                            conditions=[pk.Initial(y, 1)])

system = Decay().system
number = 3

X, u0 = pk.coords("x"), pk.given("u0")
u = pk.field("u", T, X)
family = pk.PDEFamily(
    pk.PDESystem([u.diff(T) - u.diff(X, 2)], pk.Interval(T, 0, 1) * pk.Interval(X, 0, 1),
                 [pk.Initial(u, u0 * X * (1 - X)), pk.Dirichlet(u, 0, on=pk.boundary(X))]),
    {u0: pk.Uniform(0.5, 1)},
)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def run(*arguments: str) -> int:
    return main(list(arguments))


def test_list_shows_the_gallery(capsys: pytest.CaptureFixture[str]):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines}
    # One of each gallery: equations, families, series, laws, graphs.
    assert {
        "Burgers", "DiffusionSorption", "OrnsteinUhlenbeck", "SpiralODE", "PoreNetwork",
    } <= names  # fmt: skip


def test_info_names_versions_and_solvers(capsys: pytest.CaptureFixture[str]):
    assert run("info") == 0
    out = capsys.readouterr().out
    assert "torch" in out and "CausalPINN, LagrangianPINN, MethodOfLines" in out


def test_solve_writes_four_files_and_leaves_with_0(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    code = run(
        "solve", f"{file}:Decay", "--set", "k=2", "--solver", "MethodOfLines", "--out", str(out)
    )
    assert code == 0
    names = sorted(p.name for p in out.iterdir())
    assert names == ["report.json", "solution.nc", "solution.pinn", "solution.png"]
    report = json.loads((out / "report.json").read_text())
    assert report["ok"] is True and report["settings"] == {"k": 2}
    assert report["solver_name"] == "MethodOfLines" and report["error_estimate"] < 1e-3
    assert load(out / "solution.pinn")(t=1.0) == pytest.approx(0.1353, abs=1e-3)
    assert "OK" in capsys.readouterr().out
    assert run("verify", str(out / "solution.pinn")) == 0


@pytest.mark.slow
def test_a_family_is_learned_judged_and_judged_again(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Two files; what reads them judges other draws."""
    out = tmp_path / "out"
    steps = ["--max-steps", "1", "--tol", "0.5", "--quiet", "--out", str(out)]
    assert run("solve", f"{file}:family", *steps) == 0
    assert sorted(p.name for p in out.iterdir()) == ["report.json", "solution.pinn"]
    report = json.loads((out / "report.json").read_text())
    assert report["solver_name"] == "HardConstraintMoE" and report["ok"] is True
    assert report["error_estimate"] == max(sorted(report["held_out"]["errors"])[:11])
    assert "wrote solution.pinn and report.json" in capsys.readouterr().out
    assert run("verify", str(out / "solution.pinn"), "--tol", "1e-9") == 1
    assert "verdict   INACCURATE" in capsys.readouterr().out


def test_a_wrong_answer_leaves_with_1(file: str):
    assert (
        run("solve", f"{file}:system", "--solver", "CausalPINN", "--max-steps", "1", "--quiet") == 1
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["solve", "NoSuch"], "no problem 'NoSuch'; `pinnkit list` shows the gallery"),
        (["solve", "{file}:Nothing"], "has no Nothing"),
        (["solve", "{file}:number"], "is a int, not a problem"),
        (["solve", "absent.py:X"], "there is no file absent.py"),
        (["solve", "{file}:Decay", "--set", "q=2"], "Decay has no parameter q; it has k"),
        (["solve", "{file}:Decay", "--set", "k=two"], "k is a number"),
        (["solve", "{file}:Decay", "--set", "k"], "write --set NAME=VALUE"),
        (
            ["solve", "{file}:Decay", "--solver", "Magic"],
            "there are CausalPINN, LagrangianPINN, MethodOfLines",
        ),
        (["solve", "{file}:Decay", "--tol", "-1"], "tol=-1.0 must be a positive number"),
        (["verify", "absent.pinn"], "absent.pinn"),
    ],
)
def test_wrong_commands_leave_with_1_and_say_why(
    file: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(*(a.replace("{file}", file) for a in arguments)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["solve"], ["solve", "Burgers", "--tol", "x"]]
)
def test_usage_errors_leave_with_1_not_with_argparses_2(arguments: list[str]):
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 1


def test_verify_does_not_believe_the_file(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert run("solve", f"{file}:Decay", "--max-steps", "0", "--quiet", "--out", str(out)) != 0
    sol = load(out / "solution.pinn")
    sol.status, said = pk.Status.OK, sol.verification
    sol.verification = replace(
        said, status=pk.Status.OK, ok=True, error=1e-9, evidence=pk.Evidence.REFERENCE
    )
    sol.save(tmp_path / "forged.pinn")
    assert load(tmp_path / "forged.pinn").ok
    assert run("verify", str(tmp_path / "forged.pinn")) == 1
    assert "verdict   INACCURATE" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["[1]", "None", "True", "abc"])
def test_a_numbers_value_must_be_a_number(
    file: str, value: str, capsys: pytest.CaptureFixture[str]
):
    assert run("solve", f"{file}:Decay", "--set", f"k={value}") == 1
    assert "k is a number" in capsys.readouterr().err
