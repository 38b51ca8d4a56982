import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_cli.errors import UserError
from ladder_cli.nn.connections import connect, draw


def test_aligned_feeds_every_layer_by_its_own_number():
    assert connect(3, "aligned").pairs == ((1, 1), (2, 2), (3, 3))


def test_first_is_ladder_at_k():
    connections = connect(28, "first", layers=4)
    assert connections.pairs == ((1, 1), (2, 2), (3, 3), (4, 4))
    assert connections.side_layers == 4


def test_last_feeds_the_first_half_of_the_side_network_from_the_top():
    connections = connect(6, "last")
    assert connections.pairs == ((4, 1), (5, 2), (6, 3))
    assert connections.side_layers == 6
    assert connections.source_of(4) is None


def test_last_takes_its_delta():
    assert connect(28, "last", layers=4, delta=2).pairs == ((27, 1), (28, 2))


def test_even_ends_on_the_last_layer():
    assert connect(30, "even", layers=4).taps == (8, 15, 22, 30)


def test_xladder_at_4_of_section_5_2_is_a_list():
    connections = connect(28, [[1, 1], [2, 2]], layers=4)
    assert connections.taps == (1, 2)
    assert [connections.source_of(j) for j in (1, 2, 3, 4)] == [1, 2, None, None]


@pytest.mark.parametrize(
    ("pattern", "layers", "message"),
    [
        ("aligned", 4, "needs as many side layers"),
        ("first", 9, "there is no backbone layer 7"),
        ([[7, 1]], None, "there is no backbone layer 7"),
        ([[1, 3]], 2, "there is no side layer 3"),
        ([[1, 1], [2, 1]], None, "fed twice"),
        ([[2, 1], [1, 2]], None, "run backwards"),
        ([], None, "is empty"),
    ],
)
def test_an_impossible_map_is_refused_with_the_reason(pattern, layers, message):
    with pytest.raises(UserError, match=message):
        connect(6, pattern, layers=layers)


@given(backbone=st.integers(1, 80), layers=st.integers(1, 80), pattern=st.sampled_from(["first", "last", "even"]))
def test_a_pattern_gives_a_valid_map_or_an_error_for_users(backbone, layers, pattern):
    try:
        connections = connect(backbone, pattern, layers=layers)
    except UserError:
        return
    assert connections.side_layers == layers
    assert all(1 <= i <= backbone for i in connections.taps)


def picture(*arguments, reads_final: bool = True, **options) -> str:
    return "\n".join(line.rstrip() for line in draw(connect(*arguments, **options), reads_final))


def test_aligned_layers_stand_beside_each_other():
    assert picture(2, "aligned") == (
        "backbone        side network\n"
        "    h0 ●───────▶ s0\n"
        "     1 ●───────▶ 1\n"
        "     2 ●───────▶ 2\n"
        "   h_L ●───────● U(s)  -> head"
    )


def test_layers_that_feed_nothing_are_drawn_as_one_and_side_layers_without_a_tap_stand_alone():
    assert picture(28, [[1, 1], [2, 2]], layers=4) == (
        "backbone        side network\n"
        "    h0 ●───────▶ s0\n"
        "     1 ●───────▶ 1\n"
        "     2 ●───────▶ 2\n"
        "                 3\n"
        "                 4\n"
        "  3-28 │\n"
        "   h_L ●───────● U(s)  -> head"
    )


def test_a_branch_leaves_below_the_layers_that_it_replaces():
    assert picture(6, "branch", layers=2, reads_final=False) == (
        "backbone        side network\n"
        "    h0 ●───────▶ s0\n"
        "     1 │\n"
        "     2 │\n"
        "     3 │\n"
        "     4 ●───────▶ 1\n"
        "                 2\n"
        "                 s     -> head"
    )
