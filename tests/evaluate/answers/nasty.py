"""Completions that graders hang on, die of, or misread; any number of them, no two alike."""

from itertools import count, islice

_KINDS = (
    lambda n: "9^{" * (3 + n % 7) + "9" + "}" * (3 + n % 7),
    lambda n: f"10^{{10^{{{3 + n % 40}}}}}",
    lambda n: f"({10 ** (2 + n % 9)})!",
    lambda n: "7" + "!" * (2 + n % 6),
    lambda n: f"2^{{{10 ** (4 + n % 12)}}} + {n}",
    lambda n: f"\\binom{{{10 ** (3 + n % 9)}}}{{{5 * 10 ** (2 + n % 9)}}}",
    lambda n: f"(x+y+z+{n})^{{{100 + 50 * (n % 40)}}}",
    lambda n: f"\\sum_{{k=1}}^{{{10 ** (3 + n % 9)}}} \\frac{{1}}{{k^{{{2 + n % 5}}}}}",
    lambda n: f"\\prod_{{k=1}}^{{{10 ** (2 + n % 9)}}} k",
    lambda n: f"\\int_0^1 x^{{x^{{x^{{{n}}}}}}} dx",
    lambda n: "e^{" * (4 + n % 5) + "100" + "}" * (4 + n % 5),
    lambda n: "1" * (100_000 + n),
    lambda n: "x+" * (3_000 + 10 * n) + "1",
    lambda n: "(" * (2_000 + n) + "7" + ")" * (2_000 + n),
    lambda n: "{" * (5_000 + n) + "7" + "}" * (5_000 + n),
    lambda n: "\\sqrt{" * (200 + n % 300) + "2" + "}" * (200 + n % 300),
    lambda n: "\\frac{1}{" * (100 + n % 100) + "2" + "}" * (100 + n % 100),
    lambda n: "\\sin(" * (50 + n % 100) + "1" + ")" * (50 + n % 100),
    lambda n: ",".join(str(i) for i in range(2_000 + n)),
    lambda n: "\\begin{pmatrix}" + " \\\\ ".join(" & ".join("1234") for _ in range(200 + n)) + "\\end{pmatrix}",
    lambda n: "7\x00" * (1 + n % 50),
    lambda n: "\u202e7\u202c\u200b" * (1 + n % 50),
    lambda n: "\ud800" + str(n),
    lambda n: "\\text{" * (1_000 + n),
    lambda n: "$" * (1_000 + n),
    lambda n: "\\boxed{" * (1_000 + n),
    lambda n: "\\left(" * (500 + n),
    lambda n: f"\\frac{{{n}}}{{0}}",
    lambda n: f"\\infty^{{\\infty}} - {n}",
    lambda n: "=".join(["x"] * (50 + n)),
    lambda n: f"0.{'3' * (1_000 + n)}",
    lambda n: "-" * (500 + n) + "7",
    lambda n: f"\\log_{{{n}}}" * 60 + "2",
    lambda n: f"\\lim_{{x\\to\\infty}} x^{{x^{{{n}}}}}",
    lambda n: " " * (10_000 + n) + "\u06f7",
)


def nasty(number: int) -> list[str]:
    """The first `number` of them, each kind in turn."""
    return [f"so \\boxed{{{kind(n)}}}" for n, kind in islice(((n, kind) for n in count() for kind in _KINDS), number)]
