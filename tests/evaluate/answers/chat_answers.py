r"""Completions as chat models write them, right ones and wrong ones, by gold: whole, and not only the box."""

# fmt: off
# gold: (right completions, wrong completions)
COMPLETIONS: dict[str, tuple[list[str], list[str]]] = {
    "5": (
        [
            "**Final Answer**\n\n5", "**Final Answer:** 5", "**Final Answer**: $5$", "Answer: 5",
            "The answer is $5$.", "The answer is **5**.", "Therefore, the answer is **$5$**.",
            "So the final answer is: **5**", "### Final Answer\n\n$$5$$", "### Final Answer\n\\[\n\\boxed{5}\n\\]",
            "Final Answer: \\(\\boxed{5}\\)", "**5**", "\\boxed{5 \\text{ cm}}", "\\boxed{\\$5}", "\\boxed{x = 5}",
            "The total is \\boxed{5} apples.", "Answer: $\\boxed{5}$ cm", "The final answer is $\\boxed{5}$.",
            "The answer is 5 cm.", "The answer is: 5 dollars per hour.", "Thus, x = 5.",
            "Hence the number of ways is $5$", "$$\\boxed{5}$$", "\\[ x = \\boxed{5} \\]", "\\boxed{\\mathbf{5}}",
            "**Answer: 5**", "**Answer:** $x = 5$", "Answer\n5", "The answer is \\(5\\).", "The correct answer is 5",
            "\\boxed{5 \\, \\text{units}}", "\\boxed{5\\text{ square cm}}", "\\boxed{\\text{5 cm}}",
            "\\boxed{5 \\ \\text{hours}}", "\\boxed{\\text{$5$}}", "\\boxed{ \\boldsymbol{5} }", "```\n5\n```",
            "answer = 5", "x=5", "\\boxed{5.0}", "\\boxed{ 5 }\n\nLet me know if you have 3 other questions!",
            "The answer is $\\boxed{5}$. ✅", "So we need 5 of them. **Answer:** five", "\\boxed{5\\,^\\circ}",
            "\\boxed{n=5}", "**Final Answer**\n\\boxed{5}",
            "**Final Answer**\n\n$\\boxed{5}$\n\n**Explanation**: we used 3 steps.",
        ],
        [
            "**Final Answer**\n\n6", "Answer: 6", "The answer is $15$.", "\\boxed{5 \\text{ or } 6}", "\\boxed{5x}",
            "either $\\boxed{5}$ or $\\boxed{6}$", "The answer is 5 or 6.", "\\boxed{\\$50}", "\\boxed{5,000}",
            "\\boxed{x=-5}", "\\boxed{-x=5}", "$\\boxed{4}$ or $\\boxed{5}$", "The answer is either $4$ or $5$.",
            "\\boxed{4}, or \\boxed{5}", "\\boxed{5\\pi}",
        ],
    ),
    "5000": (
        [
            "\\boxed{5,000}", "\\boxed{\\$5,000}", "\\boxed{5000.00}", "\\boxed{5\\,000}", "The answer is $5,000.",
            "The answer is 5,000 dollars", "\\boxed{5{,}000}", "\\boxed{5\\times10^3}",
            "\\boxed{5 \\text{ thousand}}",
        ],
        [
            "\\boxed{5,00}", "\\boxed{5}", "\\boxed{5.000}", "\\boxed{(5,000)}",
        ],
    ),
    "(1,2)": (
        [
            "\\boxed{(1,2)}", "\\boxed{(1, 2)}", "**Final Answer:** (1, 2)", "The answer is $(1,2)$.",
            "\\boxed{(x,y)=(1,2)}", "\\boxed{x=1, y=2}", "\\boxed{\\left(1,\\,2\\right)}",
        ],
        [
            "\\boxed{(2,1)}", "\\boxed{[1,2]}", "The answer is $(1,3)$", "\\boxed{1}",
        ],
    ),
    "\\{1,2\\}": (
        [
            "\\boxed{\\{1,2\\}}", "\\boxed{\\{2, 1\\}}", "The answer is $\\{1,2\\}$.",
        ],
        [
            "\\boxed{\\{1\\}}", "\\boxed{\\{1,2,3\\}}", "\\boxed{[1,2]}",
        ],
    ),
    "[1,2)": (
        [
            "\\boxed{[1,2)}", "\\boxed{1\\le x<2}", "\\boxed{x\\in[1,2)}", "\\boxed{[1, 2[}",
        ],
        [
            "\\boxed{(1,2]}", "\\boxed{[1,2]}", "\\boxed{(1,2)}", "\\boxed{-x\\in[1,2)}",
        ],
    ),
    "\\frac12": (
        [
            "\\boxed{\\frac12}", "\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{\\frac{1}{2}}", "The answer is 1/2.",
            "The answer is 0.5", "\\boxed{\\dfrac{1}{2}}", "\\boxed{.5}", "\\boxed{2^{-1}}", "\\boxed{50\\%}",
            "**Answer:** 1/2", "Answer: \\frac{1}{2}", "The probability is 1/2", "\\boxed{P = \\frac{1}{2}}",
            "\\boxed{\\frac{1}{2} \\approx 0.5}",
        ],
        [
            "\\boxed{\\frac21}", "\\boxed{12}", "\\boxed{-\\frac12}", "\\boxed{\\frac{1}{20}}", "\\boxed{0.05}",
        ],
    ),
    "A": (
        [
            "\\boxed{A}", "\\boxed{\\text{A}}", "\\boxed{(A)}", "The answer is A.", "The answer is (A).",
            "**Answer: A**", "Answer: A) 12", "The correct option is **A**.", "\\boxed{\\textbf{(A) } 12}",
            "Answer: A", "**A**", "The correct answer is option A.", "The correct choice is (A) because B is wrong.",
            "\\boxed{A. 12}", "\\boxed{A:\\ 12}",
        ],
        [
            "\\boxed{B}", "The answer is B.", "\\boxed{A, B}", "\\boxed{A \\text{ and } B}",
            "\\boxed{\\text{(A) or (B)}}", "\\boxed{(A),(B)}", "The answer is A or B.",
        ],
    ),
    "\\text{Yes}": (
        [
            "\\boxed{\\text{Yes}}", "\\boxed{Yes}", "\\boxed{\\text{yes}.}", "Answer: Yes", "The answer is **Yes**.",
        ],
        [
            "\\boxed{\\text{No}}", "Answer: No",
        ],
    ),
    "\\frac13": (
        [
            "\\boxed{0.\\overline{3}}", "\\boxed{0.333\\ldots}", "\\boxed{0.33333}", "\\boxed{.\\overline{3}}",
            "\\boxed{33\\frac13\\%}",
        ],
        [
            "\\boxed{0.3}", "\\boxed{0.\\overline{4}}",
        ],
    ),
    "3:00 \\text{ PM}": (
        [
            "\\boxed{3:00 \\text{ PM}}", "\\boxed{3:00\\text{ p.m.}}", "\\boxed{3:00}", "\\boxed{15:00}",
            "\\boxed{3 \\text{ PM}}", "The answer is 3:00 PM.",
        ],
        [
            "\\boxed{3:00 \\text{ AM}}", "\\boxed{4:00\\text{ PM}}", "\\boxed{3:01 \\text{ PM}}",
        ],
    ),
    "\\sqrt[3]{2}": (
        [
            "\\boxed{\\sqrt[3]{2}}", "\\boxed{2^{1/3}}", "\\boxed{\\sqrt[3]2}", "\\boxed{2^{\\frac{1}{3}}}",
        ],
        [
            "\\boxed{\\sqrt{2}}", "\\boxed{\\frac{2}{3}}", "\\boxed{3\\sqrt2}",
        ],
    ),
    "2\\pi": (
        [
            "\\boxed{2\\pi\\ \\text{rad}}", "\\boxed{2\\pi}", "\\boxed{2\\pi \\text{ radians}}",
            "\\boxed{360^\\circ}", "\\boxed{2π}",
        ],
        [
            "\\boxed{\\pi}", "\\boxed{2}", "\\boxed{6.28}", "\\boxed{2\\pi^2}", "\\boxed{360\\text{ radians}}",
        ],
    ),
    "180^\\circ": (
        [
            "\\boxed{\\pi \\text{ radians}}", "\\boxed{\\pi\\text{ rad}}", "\\boxed{180}",
            "\\boxed{180 \\text{ degrees}}", "\\boxed{180^{\\circ}}", "\\boxed{180°}", "\\boxed{180\\text{ deg}}",
        ],
        [
            "\\boxed{180\\text{ radians}}", "\\boxed{180\\text{ rad}}", "\\boxed{180\\text{ cm}}",
            "\\boxed{\\pi^\\circ}",
        ],
    ),
    "\\frac32": (
        [
            "\\boxed{1\\frac{1}{2}}", "\\boxed{1.5}", "\\boxed{1 \\frac12}", "\\boxed{1\\tfrac12}",
            "\\boxed{\\frac{3}{2}\\text{ hours}}",
        ],
        [
            "\\boxed{\\frac{11}{2}}", "\\boxed{1\\cdot\\frac12}",
        ],
    ),
    "10^{-3}": (
        [
            "\\boxed{10^{-3}}", "\\boxed{0.001}", "\\boxed{1\\times10^{-3}}", "\\boxed{\\frac{1}{1000}}",
            "\\boxed{10^{-3}\\text{ m}}",
        ],
        [
            "\\boxed{10^3}", "\\boxed{-1000}", "\\boxed{0.01}",
        ],
    ),
    "-\\infty": (
        [
            "\\boxed{-\\infty}", "\\boxed{-∞}", "\\boxed{- \\infty}",
        ],
        [
            "\\boxed{\\infty}", "\\boxed{0}",
        ],
    ),
    "2x+1": (
        [
            "\\boxed{y=2x+1}", "\\boxed{2x+1=y}", "\\boxed{f(x)=2x+1}", "\\boxed{1+2x}",
        ],
        [
            "\\boxed{y=2x}", "\\boxed{x=2y+1}", "\\boxed{2x-1=y}",
        ],
    ),
    "y=2x+1": (
        [
            "\\boxed{2x+1}", "\\boxed{2x+1=y}", "\\boxed{y-2x=1}",
        ],
        [
            "\\boxed{2x-1}", "\\boxed{2y+1=x}",
        ],
    ),
    "12!": (
        [
            "\\boxed{12!}", "\\boxed{479001600}", "\\boxed{479,001,600}", "\\boxed{12\\cdot 11!}",
        ],
        [
            "\\boxed{11!}", "\\boxed{12}",
        ],
    ),
    "10": (
        [
            "\\boxed{\\binom{5}{2}}", "\\boxed{{5 \\choose 2}}", "\\boxed{C(5,2)}", "\\boxed{\\mathrm{C}_5^2}",
            "\\boxed{_5C_2}", "\\boxed{C_{5}^{2}}", "\\boxed{{}_5C_2}", "\\boxed{^5C_2}", "\\boxed{\\binom52}",
            "\\boxed{C(5,2) = 10}", "\\boxed{10 \\text{ km/h}}", "\\boxed{\\text{10 ways}}",
            "\\boxed{10\\ \\mathrm{m\\,s^{-1}}}",
        ],
        [
            "\\boxed{\\binom{5}{1}}", "\\boxed{C(5,1)}",
        ],
    ),
    "\\binom{5}{2}": (
        [
            "\\boxed{\\frac{5!}{2!3!}}", "\\boxed{10}", "\\boxed{\\mathrm{C}_5^2}",
        ],
        [
            "\\boxed{20}",
        ],
    ),
    "60": (
        [
            "\\boxed{P(5,3)}", "\\boxed{_5P_3}", "\\boxed{{}_5P_3}", "\\boxed{5 \\cdot 4 \\cdot 3}",
            "\\boxed{\\frac{5!}{2!}}", "\\boxed{60 \\text{ mph}}", "\\boxed{60\\,\\mathrm{km\\,h^{-1}}}",
            "\\boxed{60 \\text{ seconds}}",
        ],
        [
            "\\boxed{P(5,2)}", "\\boxed{C(5,3)}", "\\boxed{600}",
        ],
    ),
    "0.0015": (
        [
            "\\boxed{1.5\\mathrm{e}{-3}}", "\\boxed{1.5\\mathrm{e}-3}", "\\boxed{1.5\\text{e-3}}",
            "\\boxed{1.5\\times10^{-3}}",
        ],
        [
            "\\boxed{1.5\\mathrm{e}{3}}", "\\boxed{1.5e-2}",
        ],
    ),
    "5\\text{ m/s}": (
        [
            "\\boxed{5\\,\\mathrm{m\\,s^{-1}}}", "\\boxed{5\\ \\text{m s}^{-1}}", "\\boxed{5\\text{ m/s}}",
            "\\boxed{5 \\ \\mathrm{m/s}}", "\\boxed{5\\,\\mathrm{m}\\,\\mathrm{s}^{-1}}",
            "\\boxed{5\\ \\frac{\\text{m}}{\\text{s}}}", "\\boxed{18\\text{ km/h}}",
            "\\boxed{5\\,\\mathrm{\\frac{m}{s}}}",
        ],
        [
            "\\boxed{5\\,\\mathrm{m\\,s^{-2}}}", "\\boxed{5\\text{ km/h}}", "\\boxed{5\\text{ m}}",
        ],
    ),
    "f(x)=\\begin{cases}1&x>0\\\\0&x\\le0\\end{cases}": (
        [
            "\\boxed{f(x)=\\begin{cases}1&x>0\\\\0&x\\le0\\end{cases}}",
            "\\boxed{f(x) = \\begin{cases} 1 & x > 0 \\\\ 0 & x \\leq 0 \\end{cases}}",
        ],
        [
            "\\boxed{f(x)=\\begin{cases}1&x>0\\\\0&x<0\\end{cases}}", "\\boxed{1}",
        ],
    ),
    "-\\frac{1}{2}": (
        [
            "\\boxed{-0.5}", "\\boxed{\\frac{-1}{2}}", "\\boxed{-\\dfrac12}", "The answer is -1/2.", "Answer: −1/2",
            "\\boxed{- \\frac{1}{2}}",
        ],
        [
            "\\boxed{0.5}", "\\boxed{\\frac{1}{2}}",
        ],
    ),
    "\\$12.50": (
        [
            "\\boxed{12.50}", "\\boxed{\\$12.5}", "\\boxed{12.50 \\text{ dollars}}", "The answer is \\$12.50.",
            "The answer is **$12.50**.", "\\boxed{\\text{\\$12.50}}", "\\boxed{1250 \\text{ cents}}",
        ],
        [
            "\\boxed{\\$125}", "\\boxed{12.05}",
        ],
    ),
    "72\\text{ square inches}": (
        [
            "\\boxed{72}", "\\boxed{72\\text{ in}^2}", "\\boxed{72 \\text{ sq in}}",
            "\\boxed{72\\ \\text{square inches}}", "\\boxed{72 \\text{ inches}^2}",
        ],
        [
            "\\boxed{72\\text{ inches}}", "\\boxed{71}",
        ],
    ),
    "\\frac{\\sqrt{3}}{3}": (
        [
            "\\boxed{\\frac{1}{\\sqrt{3}}}", "\\boxed{\\sqrt{\\frac13}}", "\\boxed{\\tan 30^\\circ}",
            "\\boxed{\\frac{\\sqrt3}3}",
        ],
        [
            "\\boxed{\\sqrt3}", "\\boxed{0.577}",
        ],
    ),
    "3-\\lfloor x\\rfloor": (
        [
            "\\boxed{3-\\lfloor x \\rfloor}",
        ],
        [
            "\\boxed{3}", "\\boxed{3-x}", "\\boxed{3-\\lceil x\\rceil}",
        ],
    ),
    "|x-5|": (
        [
            "\\boxed{|5-x|}", "\\boxed{\\lvert x-5\\rvert}",
        ],
        [
            "\\boxed{5-x}", "\\boxed{x-5}",
        ],
    ),
    "\\lceil n/2\\rceil": (
        [
            "\\boxed{\\lfloor (n+1)/2\\rfloor}",
        ],
        [
            "\\boxed{\\lfloor n/2\\rfloor}", "\\boxed{\\lfloor (n+2)/2\\rfloor}", "\\boxed{1}",
        ],
    ),
    "\\max(a,b)": (
        [
            "\\boxed{\\max(b,a)}", "\\boxed{\\frac{a+b+|a-b|}{2}}",
        ],
        [
            "\\boxed{a}", "\\boxed{b}", "\\boxed{\\min(a,b)}",
        ],
    ),
    "1, -3": (
        [
            "\\boxed{1} and \\boxed{-3}", "\\boxed{x = 1 \\text{ or } x = -3}", "\\boxed{-3, 1}",
            "$x=\\boxed{1}$ or $x=\\boxed{-3}$", "The solutions are $x = 1$ and $x = -3$.",
            "**Final Answer:** $x = 1, -3$", "\\boxed{x_1=1, x_2=-3}",
        ],
        [
            "\\boxed{1}", "\\boxed{1, 3}", "$x=\\boxed{-3}$",
        ],
    ),
    "x \\in (-\\infty, 2)": (
        [
            "\\boxed{x<2}", "\\boxed{(-\\infty,2)}",
        ],
        [
            "\\boxed{-x<2}", "\\boxed{y\\in(-\\infty,2)}", "\\boxed{x>2}", "\\boxed{x\\le 2}",
        ],
    ),
    "Q=3P": (
        [
            "\\boxed{3P}", "\\boxed{3P=Q}", "\\boxed{P=Q/3}",
        ],
        [
            "\\boxed{Q=-3P}", "\\boxed{P=3Q}",
        ],
    ),
    "xy=zw": (
        [
            "\\boxed{zw=xy}", "\\boxed{x=\\frac{zw}{y}}",
        ],
        [
            "\\boxed{xy=-zw}", "\\boxed{xy=z}", "\\boxed{xz=yw}",
        ],
    ),
    "25\\%": (
        [
            "\\boxed{25\\%}", "\\boxed{25}", "\\boxed{0.25}", "The answer is 25%.", "The answer is 25 percent",
            "**25%**",
        ],
        [
            "\\boxed{25 \\text{ weeks}}", "\\boxed{2.5}",
        ],
    ),
    "4": (
        [
            "The answer is \\boxed{4}, not \\boxed{}", "I think 3 at first... but the answer is 4.",
            "So $x=4$ or equivalently $\\boxed{4}$", "The value is $\\boxed{4}$ or $\\boxed{4.0}$", "#### 4",
            "#### $4", "Therefore x equals 4", "the answer is  $ 4 $", "$\\boxed{\\dfrac{8}{2}}$", "Answer : 4",
            "ANSWER: 4", "\\boxed{4}.", "\\boxed{4} (four)", "\\boxed{\\text{4}}", "\\boxed{\\left(4\\right)}",
            "Final answer: 4 units", "the total number of positive integers is $\\boxed{4}$ (namely $1, 2, 3, 6$).",
            "\\boxed{4\\text{ (four)}}", "*Answer:* 4", "$\\boxed{4}\\blacksquare$", "<answer>4</answer>",
            "\\( \\boxed{4} \\)\n\n**Note:** 3 is not valid.",
        ],
        [
            "\\boxed{4!}", "\\boxed{4, 5}", "$\\boxed{4}$ or $\\boxed{5}$", "$x=\\boxed{3}$ or $x=\\boxed{4}$",
            "The answer could be $\\boxed{3}$, or it could be $\\boxed{4}$.", "**Answer:** 3 or 4",
            "The answer is 14", "\\boxed{0.4}", "\\boxed{\\frac{1}{4}}", "\\boxed{4 \\text{ or } 5}",
            "\\boxed{\\{3,4\\}}", "\\boxed{4} or maybe \\boxed{5}", "\\boxed{5} or perhaps \\boxed{4}",
            "$\\boxed{3}$ (or $\\boxed{4}$)", "Either \\boxed{3} or \\boxed{4}.",
            "\\[\\boxed{3}\\] or \\[\\boxed{4}\\]", "\\boxed{3}\n\nor\n\n\\boxed{4}", "\\boxed{3} / \\boxed{4}",
            "\\boxed{3/4}", "\\boxed{x>4}", "\\boxed{4 < x}", "\\boxed{-x=4}",
        ],
    ),
    "\\frac{7}{4}": (
        [
            "\\boxed{1\\frac34}", "\\boxed{1.75}", "\\boxed{\\frac{14}{8}}", "\\boxed{1 3/4}", "\\boxed{175\\%}",
        ],
        [
            "\\boxed{\\frac{4}{7}}", "\\boxed{\\frac{13}{4}}",
        ],
    ),
    "2, 3": (
        [
            "$\\boxed{2}$ and $\\boxed{3}$", "\\boxed{2,3}", "The roots are $\\boxed{3}$ and $\\boxed{2}$.",
            "\\boxed{x=2, x=3}", "x = 2 or x = 3", "\\boxed{2 \\text{ and } 3}", "The solutions are 2 and 3.",
        ],
        [
            "\\boxed{2}", "\\boxed{3}", "\\boxed{2,3,4}", "\\boxed{(2.3)}",
        ],
    ),
    "\\pi r^2 h": (
        [
            "\\boxed{V=\\pi r^2h}", "\\boxed{\\pi hr^2}", "\\boxed{πr²h}", "\\boxed{h \\pi r^{2}}",
        ],
        [
            "\\boxed{\\pi r h^2}", "\\boxed{2\\pi r h}",
        ],
    ),
    "\\frac{n(n+1)}{2}": (
        [
            "\\boxed{\\binom{n+1}{2}}", "\\boxed{\\frac{n^2+n}{2}}", "\\boxed{C(n+1,2)}", "\\boxed{0.5n(n+1)}",
            "\\boxed{\\frac{1}{2}n(n+1)}",
        ],
        [
            "\\boxed{\\binom{n}{2}}", "\\boxed{\\frac{n(n-1)}{2}}",
        ],
    ),
    "3.14": (
        [
            "\\boxed{3.14}", "\\boxed{\\approx 3.14}", "\\boxed{3.140}",
        ],
        [
            "\\boxed{3.1}", "\\boxed{\\pi}", "\\boxed{3.15}", "\\boxed{3,14}",
        ],
    ),
    "1:2": (
        [
            "\\boxed{1:2}", "\\boxed{\\frac12}", "\\boxed{2:4}", "\\boxed{1 : 2}",
        ],
        [
            "\\boxed{2:1}", "\\boxed{1:3}",
        ],
    ),
    "\\text{east}": (
        [
            "\\boxed{\\text{East}}", "\\boxed{east}", "Answer: east", "The answer is **east**.",
        ],
        [
            "\\boxed{\\text{west}}", "\\boxed{\\text{north east}}",
        ],
    ),
    "x=3": (
        [
            "\\boxed{3}", "\\boxed{3 = x}", "\\boxed{x = 3.0}", "x = \\boxed{3}",
        ],
        [
            "\\boxed{y=3}", "\\boxed{x=-3}", "\\boxed{-x=3}", "\\boxed{x\\ne3}", "\\boxed{x>3}",
            "\\boxed{x\\approx3.1}",
        ],
    ),
    "y = -\\frac{1}{2}x + 3": (
        [
            "\\boxed{x+2y=6}", "\\boxed{y=3-\\frac{x}{2}}", "\\boxed{-\\frac{1}{2}x+3}", "\\boxed{y=-0.5x+3}",
        ],
        [
            "\\boxed{y=\\frac12x+3}", "\\boxed{x+2y=5}", "\\boxed{-y=-\\frac12x+3}",
        ],
    ),
    "-1 \\le x \\le 3": (
        [
            "\\boxed{[-1,3]}", "\\boxed{x\\in[-1,3]}", "\\boxed{-1\\leq x\\leq 3}", "\\boxed{3 \\ge x \\ge -1}",
            "\\boxed{|x-1|\\le 2}",
        ],
        [
            "\\boxed{(-1,3)}", "\\boxed{-x\\in[-1,3]}", "\\boxed{-1\\le y\\le 3}", "\\boxed{-1\\le -x\\le 3}",
        ],
    ),
    "30^\\circ, 60^\\circ": (
        [
            "\\boxed{30,60}", "\\boxed{60^\\circ\\text{ and }30^\\circ}", "\\boxed{\\frac{\\pi}{6},\\frac{\\pi}{3}}",
            "\\boxed{30\\text{ degrees}, 60\\text{ degrees}}",
        ],
        [
            "\\boxed{30\\text{ radians},60\\text{ radians}}", "\\boxed{30}",
        ],
    ),
    "45\\text{ minutes}": (
        [
            "\\boxed{45}", "\\boxed{0.75 \\text{ hours}}", "\\boxed{45\\text{ min}}",
            "\\boxed{\\frac34\\text{ hour}}", "45 minutes",
        ],
        [
            "\\boxed{45\\text{ hours}}", "\\boxed{45\\text{ seconds}}", "\\boxed{45^\\circ}",
        ],
    ),
    "\\sqrt{5}": (
        [
            "\\boxed{\\sqrt{5}}", "\\boxed{\\sqrt5 \\approx 2.236}", "\\boxed{5^{0.5}}", "\\boxed{|{-\\sqrt5}|}",
        ],
        [
            "\\boxed{2.236}", "\\boxed{\\pm\\sqrt5}", "\\boxed{5}",
        ],
    ),
    "\\$32,\\!348": (
        [
            "\\boxed{32348}", "\\boxed{\\$32,348}", "\\boxed{32,348 \\text{ dollars}}",
        ],
        [
            "\\boxed{\\$32,384}", "\\boxed{32348\\text{ cents}}",
        ],
    ),
    "50 \\text{ cents}": (
        [
            "\\boxed{50}", "\\boxed{\\$0.50}", "\\boxed{50¢}", "\\boxed{0.50 \\text{ dollars}}",
        ],
        [
            "\\boxed{\\$50}",
        ],
    ),
    "(B)": (
        [
            "\\boxed{B}", "\\boxed{\\text{(B)}}", "The answer is (B).", "**B**", "Answer: **B) 12**", "B",
        ],
        [
            "\\boxed{A}", "\\boxed{(B), (C)}", "The answer is (B) or (C).", "\\boxed{B/C}",
        ],
    ),
    "A, C": (
        [
            "\\boxed{A, C}", "\\boxed{\\text{A and C}}", "\\boxed{C, A}", "\\boxed{(A), (C)}",
            "\\boxed{\\text{A, C}}",
        ],
        [
            "\\boxed{A}", "\\boxed{A, B, C}", "\\boxed{C}",
        ],
    ),
    "90^\\circ": (
        [
            "\\boxed{\\frac{\\pi}{2}\\text{ radians}}", "\\boxed{90 \\text{ degrees}}",
        ],
        [
            "\\boxed{-90^\\circ}", "\\boxed{90\\text{ rad}}", "\\boxed{90\\text{ minutes}}",
        ],
    ),
    "\\lfloor x \\rfloor": (
        [
            "\\boxed{\\lfloor x\\rfloor}",
        ],
        [
            "\\boxed{\\lceil x \\rceil}", "\\boxed{x}", "\\boxed{\\lceil x \\rceil - 1}",
        ],
    ),
    "F=ma": (
        [
            "\\boxed{ma}", "\\boxed{F=m a}", "\\boxed{a=\\frac{F}{m}}",
        ],
        [
            "\\boxed{F=-ma}", "\\boxed{F=m}", "\\boxed{m=Fa}",
        ],
    ),
    "E=mc^2": (
        [
            "\\boxed{mc^2}", "\\boxed{E = m c^{2}}",
        ],
        [
            "\\boxed{E=-mc^2}", "\\boxed{E=mc}",
        ],
    ),
    "ab=cd": (
        [
            "\\boxed{cd=ab}", "\\boxed{\\frac{a}{c}=\\frac{d}{b}}",
        ],
        [
            "\\boxed{ab=-cd}", "\\boxed{ac=bd}",
        ],
    ),
    "C_1e^x+C_2e^{-x}": (
        [
            "\\boxed{C_1e^{x}+C_2e^{-x}}", "\\boxed{y=C_1e^x+C_2e^{-x}}", "\\boxed{C_2e^{-x}+C_1e^x}",
        ],
        [
            "\\boxed{C_1e^x}", "\\boxed{C_1e^x-C_2e^{-x}}",
        ],
    ),
    "\\begin{pmatrix} 1 \\\\ -2 \\end{pmatrix}": (
        [
            "\\boxed{\\begin{bmatrix} 1 \\\\ -2 \\end{bmatrix}}", "\\boxed{(1,-2)}",
            "\\boxed{\\langle 1,-2\\rangle}",
        ],
        [
            "\\boxed{\\begin{pmatrix} -2 \\\\ 1 \\end{pmatrix}}", "\\boxed{(1,2)}",
        ],
    ),
    "\\$0.50": (
        [
            "\\boxed{50\\text{ cents}}", "\\boxed{\\$.50}", "\\boxed{0.5}",
        ],
        [
            "\\boxed{50}", "\\boxed{5\\text{ cents}}",
        ],
    ),
}
