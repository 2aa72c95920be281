"""The graph language: what can be written, what is refused, what is known of a system."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.declare import Neighbour
from pinnkit.ir.graph_tree import graph_system_from_tree, graph_system_to_tree

S = pk.neighbour_sum
p, q = pk.node_field("p q")
s = pk.node_feature("s")
k = pk.edge_feature("k")
w = pk.edge_feature("w", odd=True)
BALANCE = S(k * (p.neighbour - p))
ENDS = [pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")]


def chain(n: int = 4, **edge) -> pk.Graph:
    """0 - 1 - ... - n-1 with inlet and outlet at the ends."""
    place = np.arange(n)
    return pk.Graph(
        [place[:-1], place[1:]],
        node={"inlet": place == 0, "outlet": place == n - 1, "s": place * 1.0},
        edge={"k": np.ones(n - 1), "w": np.ones(n - 1)} | edge,
    )


def test_symbols_compare_by_all_that_is_declared():
    """As texts of one name they are equal; sympy would exchange them silently otherwise."""
    assert p == pk.node_field("p")
    assert p != pk.node_field("p", initial=1.0)
    assert p != pk.node_feature("p")
    assert k != pk.edge_feature("k", odd=True)
    assert pk.node_feature("x", column=0) != pk.node_feature("x", column=1)
    assert isinstance(p.neighbour, Neighbour)
    assert p.neighbour.of == p
    assert pickle.loads(pickle.dumps(p.neighbour * k)) == p.neighbour * k
    assert str(pk.node_feature("x", column=1).neighbour) == "x[1].neighbour"


def test_what_a_system_knows_of_itself():
    """Linear or not, and which fields only matter up to a constant."""
    linear = pk.GraphSystem(BALANCE, ENDS).normal_form
    assert linear.linear
    assert linear.floating == {p}
    losses = pk.GraphSystem(BALANCE - s * p).normal_form
    assert losses.linear
    assert not losses.floating
    cubic = pk.GraphSystem(S(k * (p.neighbour - p) ** 3), ENDS).normal_form
    assert not cubic.linear
    assert cubic.floating == {p}
    degree = pk.GraphSystem(
        S(k * p.neighbour) - p * S(k), ENDS
    ).normal_form  # another way to write it
    assert degree.linear
    assert degree.floating == {p}
    product = pk.GraphSystem(S(k * p.neighbour) * S(p.neighbour) - 1).normal_form
    assert not product.linear
    best = pk.GraphSystem(p - pk.neighbour_max(k + p.neighbour)).normal_form
    assert not best.linear
    assert best.floating == {p}
    assert not pk.GraphSystem(p - pk.neighbour_max(k + 0.9 * p.neighbour)).normal_form.floating


def test_equations_may_be_written_in_every_usual_way():
    """One expression, a list, sp.Eq, a dictionary by field."""
    forms = [
        pk.GraphSystem(BALANCE, ENDS[0]),
        pk.GraphSystem([BALANCE], ENDS[:1]),
        pk.GraphSystem(sp.Eq(BALANCE, 0), tuple(ENDS[:1])),
        pk.GraphSystem({p: BALANCE}, ENDS[:1]),
    ]
    assert {f.normal_form.residuals for f in forms} == {(BALANCE,)}
    assert all(f.fields == (p,) and f.parameters == () and f.coords == () for f in forms)


def test_remake_exchanges_parts():
    P = pk.parameter("P")
    system = pk.GraphSystem(
        BALANCE, [pk.Fixed(p, P, where="inlet"), pk.Total(p, 1), pk.Fixed(p, 0, where="outlet")]
    )
    assert system.parameters == (P,)
    known = system.remake(conditions=[pk.Fixed(p, 2, where="inlet")])
    assert known.parameters == ()
    on = known.on(chain())
    assert on.remake(graph=chain(6)).graph.n_nodes == 6
    with pytest.raises(pk.DeclarationError, match=r"q is no unknown number"):
        system.remake(parameters={q: 1.0})
    with pytest.raises(AttributeError, match="immutable"):
        system.equations = ()  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        on.graph = chain()  # type: ignore[misc]


def test_a_target_without_an_equation_is_remade_and_closed():
    """It has what every problem has, but for the equation."""
    target = pk.GraphTarget("label", of="graph", classes=2)
    assert target.remake(classes=3) == pk.GraphTarget("label", of="graph", classes=3)
    assert pickle.loads(pickle.dumps(target)) == target == target.system == target.normal_form
    for change in (lambda: setattr(target, "of", "node"), lambda: delattr(target, "of")):
        with pytest.raises(AttributeError, match="problems are immutable; use"):
            change()
    with pytest.raises(pk.UnsupportedProblemError, match="a GraphTarget has no equation"):
        target.residual({})


def test_systems_survive_pickle_and_json():
    """Both directions of sums, odd features, columns, parameters, all kinds of conditions."""
    P, x1 = pk.parameter("P", initial=2.0, bounds=(0, 3)), pk.node_feature("x", column=1)
    V = pk.node_field("V", initial=1.0, unit="V")
    system = pk.GraphSystem(
        {
            p: S(k * (p.neighbour - p) * pk.orientation) + x1 * P,
            V: pk.neighbour_max(w * V.neighbour) - S(sp.exp(V), outgoing=True) - p,
        },
        [pk.Fixed(p, P * s, where="inlet"), pk.Total(S(k * p), 3, where="outlet")],
    )
    for back in (
        pickle.loads(pickle.dumps(system)),
        graph_system_from_tree(json.loads(json.dumps(graph_system_to_tree(system)))),
    ):
        assert back.equations == system.equations
        assert back.conditions == system.conditions
        assert back.paired == system.paired
        assert repr(back) == repr(system)
    with pytest.raises(ValueError, match="not a saved system"):
        graph_system_from_tree({"version": 1})
    tree = graph_system_to_tree(system)
    tree["conditions"][0]["kind"] = "exec"
    with pytest.raises(ValueError, match="unknown condition 'exec'"):
        graph_system_from_tree(tree)


def test_latex_names_the_node_and_its_neighbours():
    text = pk.GraphSystem(BALANCE, [*ENDS[:1], pk.Fixed(p, s, where="outlet")]).latex()
    assert r"\sum_{j \to i} k_{ij} \left(- p_{i} + p_{j}\right) = 0" in text
    assert r"p_{i} = s_{i} \quad \text{(outlet)}" in text


def test_problem_classes_may_declare_graphs():
    @pk.problem
    class Chain(pk.ProblemClass):
        """p_i is the mean of its neighbours."""

        n: int = 4

        def declare(self):
            return pk.GraphSystem(BALANCE, ENDS).on(chain(self.n))

    assert Chain().fields == (p,)
    assert Chain(n=5).system.graph.n_nodes == 5
    assert np.allclose(Chain().remake(n=3).solve()[p], [1, 0.5, 0])


x, t = sp.Symbol("x"), pk.coords("t")
DECLARED_WRONG = {
    "outside": (lambda: pk.GraphSystem(k * p), r"k is an edge's.*inside neighbour_sum"),
    "neighbour outside": (
        lambda: pk.GraphSystem(p.neighbour - p),
        "a neighbour's value, and a node",
    ),
    "strange": (lambda: pk.GraphSystem(p - x), r"x is no symbol of a graph.*node_field\(\"x\"\)"),
    "strange inside": (lambda: S(x * p), "x is no symbol of a graph"),
    "derivative": (lambda: pk.GraphSystem(p - pk.field("u", t).diff(t)), "no meaning at a node"),
    "nested": (lambda: S(p * S(p)), "inside another.*field of its own"),
    "vector": (lambda: S([p, q]), "this is a vector"),
    "outgoing": (lambda: S(p, outgoing=2), "outgoing=2 is not True or False"),  # type: ignore[arg-type]
    "no field": (lambda: pk.GraphSystem(S(k) - s), "no field is in it"),
    "none": (lambda: pk.GraphSystem([]), "there is no equation"),
    "too many": (lambda: pk.GraphSystem([p - 1, 2 * p]), "2 equations for 1 field, p"),
    "too few": (lambda: pk.GraphSystem([p - q]), "1 equation for 2 fields, p, q"),
    "pairs": (
        lambda: pk.GraphSystem({p: q - 1}),
        "equations are given for p, and the fields in them",
    ),
    "pair key": (lambda: pk.GraphSystem({s: p - 1}), "s is not a field of nodes"),
    "column": (lambda: pk.GraphSystem([sp.Matrix([p, q])]), "this is a vector"),
    "truth": (lambda: pk.GraphSystem([p == q]), "truth value"),
    "two meanings": (
        lambda: pk.GraphSystem(S(k * p) - S(pk.edge_feature("k", odd=True))),
        "an odd edge feature.*another name|an edge feature here",
    ),
    "two starts": (
        lambda: pk.GraphSystem([p - pk.node_field("p", initial=2), q]),
        "p means a field",
    ),
    "condition": (lambda: pk.GraphSystem(BALANCE, [1]), "not a condition on a graph"),
    "other field": (lambda: pk.GraphSystem(BALANCE, [pk.Fixed(q, 1)]), "q is in no equation"),
    "fixed feature": (lambda: pk.Fixed(s, 1), "s is not a field of nodes"),
    "fixed unknown": (lambda: pk.Fixed(p, q), "the value q is not known beforehand"),
    "fixed edge": (lambda: pk.Fixed(p, k), "the value k is not known beforehand"),
    "fixed sum": (
        lambda: pk.GraphSystem(BALANCE, [pk.Fixed(p, x)]),
        "x is no symbol of a graph",
    ),
    "where": (lambda: pk.Fixed(p, 1, where=3), "not the name of a node feature"),  # type: ignore[arg-type]
    "total known": (lambda: pk.Total(s, 1), "s contains no field"),
    "total value": (lambda: pk.Total(p, s), "s is no number"),
    "unknown number": (
        lambda: pk.GraphSystem(BALANCE - pk.parameter("P")),
        r"1 unknown number \(P\) and 0 Totals",
    ),
    "lonely total": (
        lambda: pk.GraphSystem(BALANCE, [pk.Total(p, 1)]),
        "0 unknown numbers and 1 Total",
    ),
    "name": (lambda: pk.node_field("1p"), "'1p' is not a name"),
    "no name": (lambda: pk.edge_feature(" "), "no name is given"),
    "not text": (lambda: pk.node_feature(3), "names are a string"),  # type: ignore[arg-type]
    "initial": (lambda: pk.node_field("p", initial=sp.I), "not a real number"),  # type: ignore[arg-type]
    "odd": (lambda: pk.edge_feature("k", odd=1), "odd is True or False"),  # type: ignore[arg-type]
    "taken": (lambda: pk.edge_feature("orientation"), "taken by pk.orientation"),
    "negative column": (lambda: pk.node_feature("x", column=-1), "a column is a whole number"),
}


@pytest.mark.parametrize("name", DECLARED_WRONG)
def test_wrong_declarations_are_refused_in_words(name):
    make, message = DECLARED_WRONG[name]
    with pytest.raises(pk.DeclarationError, match=rf"(?s){message}"):
        make()


def on(graph: pk.Graph, equations=BALANCE, conditions=ENDS):
    return pk.GraphSystem(equations, conditions).on(graph)


def parted() -> pk.Graph:
    """0 - 1 - 2 between inlet and outlet, 3 - 4 and 5 apart."""
    place = np.arange(6)
    node = {"inlet": place == 0, "outlet": place == 2}
    return pk.Graph([[0, 1, 3], [1, 2, 4]], node=node, edge={"k": np.ones(3)})


BOUND_WRONG = {
    "no graph": (lambda: on([[0], [1]]), "not a graph"),  # type: ignore[arg-type]
    "no feature": (lambda: on(pk.Graph([[0], [1]])), "no edge feature 'k'; it has none"),
    "columns": (lambda: on(chain(k=np.ones((3, 2)))), r"has 2 columns.*column=0"),
    "column": (
        lambda: on(chain(), S(pk.edge_feature("k", column=1) * p)),
        r"k\[1\] asks for column 1.*one value each",
    ),
    "no mask": (
        lambda: on(chain(), conditions=[pk.Fixed(p, 1, where="wall")]),
        "no node feature 'wall'; it has inlet, outlet, s",
    ),
    "no booleans": (
        lambda: on(chain(), conditions=[pk.Fixed(p, 1, where="s")]),
        "'s' is float64, expected one boolean per node",
    ),
    "fixed twice": (
        lambda: on(chain(), conditions=[*ENDS, pk.Fixed(p, 2, where="inlet")]),
        "both hold at node 0.*disjoint",
    ),
    "all fixed": (lambda: on(chain(), conditions=[pk.Fixed(p, 1)]), "nothing to solve for"),
    "empty": (lambda: on(pk.Graph([[], []], edge={"k": []}), conditions=[]), "has no nodes"),
    "floating": (
        lambda: on(parted()),
        r"p enters the equations only through differences, and nodes 3, 4 and 5 are connected to no node",
    ),
    "directed": (
        lambda: on(
            pk.Graph(
                [[0, 2], [1, 1]],
                node={"inlet": [True, False, False], "outlet": [False] * 3},
                edge={"k": [1.0, 1.0]},
                directed=True,
            )
        ),
        "and node 2 is connected to no node where p is fixed",
    ),
    "no arc": (
        lambda: pk.GraphSystem(p - pk.neighbour_max(k + 0.5 * p.neighbour)).on(
            pk.Graph([[0], [1]], edge={"k": [1.0]}, directed=True)
        ),
        "neighbour_max has no value at node 0, where there is no incoming edge",
    ),
    "unpaired": (
        lambda: on(chain(), [S(k * (p.neighbour - q)), S(k * (q.neighbour - q)) - p], ENDS),
        r"p is fixed and another field is not.*GraphSystem\(\{",
    ),
}


@pytest.mark.parametrize("name", BOUND_WRONG)
def test_what_does_not_fit_a_graph_is_refused_in_words(name):
    make, message = BOUND_WRONG[name]
    with pytest.raises(pk.DeclarationError, match=rf"(?s){message}"):
        make()


def test_many_nodes_are_not_all_listed():
    place = np.arange(100)
    graph = pk.Graph(
        [[0], [1]], node={"inlet": place == 0, "outlet": place == 1}, edge={"k": [1.0]}
    )
    with pytest.raises(
        pk.DeclarationError, match=r"nodes 2, 3, 4, 5, 6, 7 and 92 more are connected"
    ):
        on(graph)


def test_what_has_no_meaning_says_so():
    system = pk.GraphSystem(BALANCE, ENDS)
    with pytest.raises(pk.UnsupportedProblemError, match=r"system\.on\(graph\)\.residual"):
        system.residual({})
    with pytest.raises(pk.UnsupportedProblemError, match="differential equations"):
        system.diagnose()
    refused = {
        "CausalPINN": pk.CausalPINN(),
        "LagrangianPINN": pk.LagrangianPINN(),
        "MethodOfLines": pk.MethodOfLines(),
        "SpectralMixtureGP": pk.SpectralMixtureGP(),
    }
    for name, solver in refused.items():
        with pytest.raises(
            pk.UnsupportedProblemError, match=rf"{name} solves differential equations"
        ):
            system.on(chain()).solve(solver)
    with pytest.raises(pk.UnsupportedProblemError, match=r"system\.on\(graph\)\.solve"):
        system.solve(pk.SparseFixedPoint())
    with pytest.raises(ValueError, match="data= is for learning"):
        system.on(chain()).solve(pk.SparseFixedPoint(), data=[chain()])
