"""The picture of which layer feeds which, as a reader sees it."""

from ladder_cli.nn.connection_map import draw
from ladder_cli.nn.connections import connect


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
