"""What a cell is said to read, bind and delete."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from prefect_cache.cells.analysis import analyse, may_name_file, parse, tree_digest

TRANSFORM = TransformerManager().transform_cell
NAMES = ("df", "orders", "customers", "limit", "who", "x")


def reads(source: str, names=NAMES) -> set[str]:
    cell = analyse(source, transform=TRANSFORM, names=names)
    return {name for name in cell.reads if not hasattr(builtins, name)}


def words(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # in order
        ("x = 1\ny = x + z", "z"),
        ("y = x\nx = 1", "x"),
        ("x += 1", "x"),
        ("x = y = z", "z"),
        ("(a, *b), c.d, e[f] = g", "c e f g"),
        ("df['c'] = 1", "df"),
        ("df.c = 1", "df"),
        ("del x", "x"),
        ("x = 1\ndel x", ""),
        ("del x[0], y.z", "x y"),
        ("x: int = y", "y"),
        ("x: int\nx", "x"),
        ("x = x", "x"),
        # branches
        ("if c:\n    x = 1\nx", "c x"),
        ("if c:\n    x = 1\nelse:\n    x = 2\nx", "c"),
        ("if c:\n    x = 1\nelif d:\n    x = 2\nelse:\n    x = 3\nx", "c d"),
        ("if c:\n    x = 1\nelse:\n    raise ValueError\nx", "c"),
        ("x = a if b else c", "a b c"),
        ("(a := 1) and (b := 2)\na, b", "b"),
        ("c and (b := 2) or b", "b c"),
        # loops
        ("for i in xs:\n    y = i\ny", "xs y"),
        ("for i in xs:\n    pass\ni", "i xs"),
        ("for i in xs:\n    y = 1\nelse:\n    y = 2\ny", "xs"),
        ("for i in xs:\n    if i:\n        y = 1\n        break\nelse:\n    y = 2\ny", "xs"),
        ("for i in xs:\n    if i:\n        break\nelse:\n    y = 2\ny", "xs y"),
        ("for i in xs:\n    p(q)\n    q = i", "p q xs"),
        ("for i in xs:\n    if i: continue\n    y = 1\nelse:\n    y = 0\ny", "xs"),
        ("while c:\n    y = 1\ny", "c y"),
        ("while True:\n    y = f()\n    if y:\n        break\ny", "f"),
        ("while 1:\n    if f():\n        break\n    y = 1\ny", "f y"),
        ("for x.a in b: pass", "b x"),
        ("for x[i] in b: pass", "b i x"),
        # errors
        ("try:\n    x = 1\nexcept E:\n    pass\nx", "E x"),
        ("try:\n    x = 1\nexcept E:\n    x = 2\nx", "E"),
        ("try:\n    x = 1\nexcept E as e:\n    raise\nx", "E"),
        ("try:\n    f()\nexcept E as e:\n    print(e)", "E f"),
        ("try:\n    f()\nexcept E:\n    pass\nelse:\n    x = 1\nx", "E f x"),
        ("try:\n    f()\nfinally:\n    x = 1\nx", "f"),
        ("try:\n    x = 1\nfinally:\n    g(x)", "g x"),
        ("try:\n    f()\nexcept* E as e:\n    g(e)", "E f g"),
        ("with open(p) as f:\n    y = f.read()\ny", "p y"),
        ("with a as b, b.c as d:\n    d", "a"),
        ("with a as x.y: pass", "a x"),
        # match
        ("match p:\n    case [a, *b]:\n        a, b", "p"),
        ("match p:\n    case {'k': v, **rest}:\n        v, rest", "p"),
        ("match p:\n    case Point(x=0, y=yy) if yy > q:\n        yy", "Point p q"),
        ("match p:\n    case m.Red | m.Blue:\n        z = 1\n    case _:\n        z = 2\nz", "m p"),
        ("match p:\n    case 1:\n        z = 1\nz", "p z"),
        ("match p:\n    case {K.a: 1}: pass", "K p"),
        # comprehensions
        ("[y for x in a if x > t for y in x]", "a t"),
        ("{k: v for k, v in a.items()}", "a"),
        ("[(x, i) for i in x]", "x"),
        ("[x for x in x]", "x"),
        ("[(last := i) for i in a]\nlast", "a last"),
        ("sum(w * v for w, v in zip(ws, vs))", "ws vs"),
        ("[lambda: i + j for i in a]", "a j"),
        ("[z for obj.attr in a]", "a obj z"),
        # functions: what they read counts from where somebody could call them
        ("def f(): return q", ""),
        ("def f(): return q\nf()", "q"),
        ("def f(): return q\nq = 1\nf()", ""),
        ("def f(): return g()\ndef g(): return 1\nf()", ""),
        ("def f(n): return f(n - 1)\nf(3)", ""),
        ("def f(): return q\ng(1)\nq = 1", "g q"),
        ("def f(a, *b, c=d, **e): return a, b, c, e\nf", "d"),
        ("def f(x: T) -> R: pass", "R T"),
        ("@deco\ndef f(): return q", "deco q"),
        ("df.apply(lambda r: helper(r, key))", "df helper key"),
        ("f = lambda: q\nf()", "q"),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x += q\n    return g\nf()", "q"),
        ("def f():\n    global x\n    x += 1\nf()", "x"),
        ("def f():\n    if a:\n        x = 1\n    return x\nf()", "a"),
        ("def f():\n    return [x for x in y] + x\nf()", "y x"),
        ("def f():\n    import os\n    return os\nf()", ""),
        ("def f():\n    for i in y: pass\n    return i\nf()", "y"),
        ("def f():\n    with o as p: return p\nf()", "o"),
        ("def f():\n    try: pass\n    except E as e: return e\nf()", "E"),
        ("def f():\n    match q:\n        case {'a': b, **c}: return b, c\nf()", "q"),
        ("async def f():\n    async with x as y:\n        async for z in y:\n            await z\nawait f()", "x"),
        ("await task", "task"),
        ("[i async for i in stream]", "stream"),
        # classes
        ("class A(B, metaclass=M):\n    y = z", "B M z"),
        ("class A:\n    x = 1\n    y = x", ""),
        ("class A:\n    y = x\n    x = 1", "x"),
        ("class A:\n    n = 3\n    m = [n for i in range(n)]", "n"),
        ("class A:\n    def f(self): return q", ""),
        ("class A:\n    def f(self): return q\nA().f()", "q"),
        ("class A:\n    x = 1\n    def f(self): return x\nA().f()", "x"),
        ("class A:\n    def f(self): return __q\nA().f()", "_A__q"),
        ("class A:\n    T = int\n    def f(self, a: T): pass", ""),
        ("class A:\n    global g\n    g = 1\ng", "g"),
        ("@deco\nclass A:\n    def f(self): return q", "deco q"),
        ("class A(B):\n    def f(self): return q", "B q"),
        # modules come in
        ("import a.b\na", ""),
        ("import a.b as c\nc, a", "a"),
        ("from a import b as c\nc", ""),
        ("from math import *\nsqrt(y)", "y"),
        # texts
        ("f'{a:{b}} {c!r} {d=}'", "a b c d"),
        ("df.query('price > @limit and a < 3')", "df limit"),
        ("df.query(f'price > {y} + @limit')", "df limit y"),
        ("df.eval('c = a + @b')", "df b"),
        ("q = 'a > @limit'\ndf.query(q)", "df limit"),
        ("def f(d, limit): return d.query('a > @limit')\nf(df, 1)", "df"),
        ("pd.eval('orders + customers + other')", "customers orders pd"),
        ("duckdb.sql('SELECT * FROM orders JOIN customers USING (id)')", "customers duckdb orders"),
        ("sql('select 1 from orders, \"customers\"')", "customers orders sql"),
        ("send('me@limit.org')", "send"),
        # magics and shells
        ("%time f(y)", "f y"),
        ("z = %time f(y)", "f y"),
        ("%%time\na = b\na", "b"),
        ("%timeit -n 3 -r2 f(y)", "f y"),
        ("%timeit -n3 -o f(y)", "f y"),
        ("%%timeit s = y\nf(s)", "f y"),
        ("%%timeit\na = 1\na", ""),
        ("%%timeit\na = 1\n", ""),
        ("%prun -l 7 -s cumulative f(y)", "f y"),
        ("%%capture out\na = b\n", "b"),
        ("%%time\n%time f(y)", "f y"),
        ("!echo {who} $x", "who x"),
        ("!echo {who.upper()} {x[0]:>5}", "who x"),
        ("y = !ls $x", "x"),
        ("y = !ls\ny", ""),
        ("!echo '{x'", "echo x"),
        ("for i in xs:\n    !touch {i}.csv", "xs"),
        ("%cd {x}", "x"),
        ("%%bash -s {x}\necho $1", "x"),
        ("%%bash --out text\necho 1\n", ""),
        ("%%unknown_magic x\nselect orders\nnothing", "orders x"),
        ("%unknown_magic orders nothing", "orders"),
    ],
)
def test_what_may_be_read_before_it_is_bound_is_an_input(source: str, expected: str) -> None:
    assert reads(source) == words(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f[T: B](a: T) -> T: return q", ""),
        ("def f[T: B](a: T) -> T: return q\nf(1)", "B q"),
        ("class A[T](Base[T]):\n    x: T", "Base"),
        ("type X[T] = dict[T, Y]", ""),
        ("type X[T] = dict[T, Y]\nX.__value__", "Y"),
    ],
)
def test_type_parameters_are_a_scope_of_their_own_where_python_knows_them(source: str, expected: str) -> None:
    if sys.version_info >= (3, 12):
        assert reads(source) == words(expected)
    else:
        with pytest.raises(SyntaxError):
            analyse(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b = 1\nc, (d, *e) = f", "a b c d e"),
        ("x += 1", "x"),
        ("x: int = 1\ny: int", "x"),
        ("for i, j in xs: k = 1", "i j k"),
        ("with a as b: c = 1", "b c"),
        ("import a.b, c as d\nfrom e import f as g, h", "a d g h"),
        ("def f(): y = 1\nclass A: z = 1\nasync def g(): pass", "A f g"),
        ("def f():\n    global y\n    y = 1", "f y"),
        ("class A:\n    global y\n    y = 1", "A y"),
        ("[(y := i) for i in a]", "y"),
        ("if (n := f()): pass", "n"),
        ("match p:\n    case [a, *b] | {'c': a, **b}: pass\n    case A(d=d) as e: pass", "a b d e"),
        ("try: pass\nexcept E as e: pass", "e"),
        ("%%capture out\na = 1", "a out"),
        ("%time a = f()", "a"),
        ("%timeit a = f()", "a"),
        ("files = !ls", "files"),
        ("%%bash --out text --err errors\nls", "errors text"),
        ("exec('a = b')", "a"),
    ],
)
def test_every_form_of_binding_is_seen(source: str, expected: str) -> None:
    assert set(analyse(source, transform=TRANSFORM).writes) == words(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("del a, (b, c)", "a b c"),
        ("del a.b, c[0]", ""),
        ("def f():\n    global y\n    del y", "y"),
        ("try: pass\nexcept E as e: pass", "e"),
    ],
)
def test_deletions_are_seen(source: str, expected: str) -> None:
    assert set(analyse(source).deletes) == words(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("globals()['x']", "globals()"),
        ("locals()", "locals()"),
        ("vars()", "vars()"),
        ("dir()", "dir()"),
        ("eval(s)", "eval()"),
        ("exec(s)", "exec()"),
        ("list(map(eval, s))", "eval()"),
        ("f.__globals__", "__globals__"),
        ("get_ipython().user_ns", "get_ipython()"),
        ("get_ipython().run_cell(s)", "get_ipython()"),
        ("shell = get_ipython()", "get_ipython()"),
        ("import __main__", "__main__"),
        ("import sys\nsys.modules['__main__']", "sys.modules"),
        ("import sys\nsys._getframe(0)", "sys._getframe()"),
        ("import inspect\ninspect.stack()", "inspect.stack()"),
        ("import importlib\nimportlib.import_module(name)", "import_module()"),
        ("__import__(name)", "__import__()"),
        ("from no_such_module import *", "no_such_module"),
        ("import json\njson.X = 1", "json.X"),
        ("import a.b\na.b.c = 1", "a.b.c"),
        ("from os import path\npath.sep = 1", "path.sep"),
        ("import json\nsetattr(json, 'X', 1)", "json"),
        ("import json\ndel json.X", "json.X"),
        ("import logging\nlogging.basicConfig(level=10)", "logging.basicConfig()"),
        ("import locale\nlocale.setlocale(locale.LC_ALL, '')", "locale.setlocale()"),
        ("%run script.py", "%run"),
        ("%store -r", "%store"),
        ("%who", "%who"),
        ("%load_ext autoreload", "%load_ext"),
        ("%pip install x", "%pip"),
        ("df?", "pager"),
        ("name = input()", "input()"),
        ("df.query(texts[0])", "query()"),
        ("df.query(f'a > @{name}')", "@"),
        ("def f(s): return eval(s)\nf('x')", "eval()"),
    ],
)
def test_what_cannot_be_seen_is_said_in_words(source: str, reason: str) -> None:
    (found,) = analyse(source, transform=TRANSFORM).dynamic
    assert reason in found


@pytest.mark.parametrize(
    "source",
    [
        "eval('a + b')",
        "eval(s, {'x': 1})",
        "model.eval()",
        "def f():\n    return locals(), vars(), dir()\nf()",
        "vars(obj), dir(obj)",
        "def f(s): return eval(s)",
        "import importlib\nimportlib.import_module('math')",
        "import sys\nsys.modules['math']",
        "%cd folder",
        "%pip list",
        "%%html\n<b>x</b>",
        "eval = 1\neval",
        "import sys\nsys.path = []",
        "df.attr = 1",
        "import pandas as pd\npd.options.display.precision = 3",
    ],
)
def test_what_can_be_seen_is_no_reason_to_doubt(source: str) -> None:
    assert analyse(source, transform=TRANSFORM).dynamic == ()


def test_names_in_a_text_that_a_variable_holds_are_read() -> None:
    assert reads("df.query(q)", {"df": 0, "q": "price > @limit", "limit": 3}) == {"df", "q", "limit"}
    assert reads("duckdb.sql(q)", {"q": "from orders", "orders": 0}) == {"duckdb", "q", "orders"}


@pytest.mark.parametrize(
    ("source", "weak"),
    [
        ("for i in xs:\n    y = i\ny", "y"),
        ("with open(p) as f:\n    y = f.read()\ny", "y"),
        ("if c:\n    y = 1\ny", "y"),
        ("y = y", ""),
        ("for i in xs:\n    y\n    y = i", ""),
        ("try:\n    if c: y = 1\n    y\nexcept NameError: pass", ""),
        ("if c:\n    max = 1\nmax", ""),
        ("if c:\n    y = 1\ndef f(): return y\nf()", ""),
    ],
)
def test_a_read_is_weak_where_an_absent_name_would_have_ended_the_run(source: str, weak: str) -> None:
    assert set(analyse(source).weak) == words(weak)


def test_imports_are_named_with_their_submodules() -> None:
    cell = analyse("import a.b as c\nfrom os import path, sep\nfrom json import decoder\ndef f():\n    import d")
    assert cell.imports == ("a.b", "d", "json", "json.decoder", "os", "os.path")


def test_environment_variables_named_as_constants_are_seen() -> None:
    source = """
    import os
    os.environ['A'], os.environ.get('B', d), os.getenv('C'), 'D' in os.environ
    os.environ['E'] = '1'
    !echo $F ${G} $who
    """.replace("\n    ", "\n")
    assert analyse(source, transform=TRANSFORM, names=NAMES).environ == ("A", "B", "C", "D", "F", "G")


def test_texts_that_may_name_files_are_kept() -> None:
    source = "pd.read_csv('data/a.csv')\nx = 'two\\nlines'\n!cat 'b c.csv' | head > out.txt\n'http://a/b'"
    found = set(analyse(source, transform=TRANSFORM).strings)
    assert {"data/a.csv", "b c.csv", "out.txt"} <= found
    assert not {"two\nlines", "http://a/b"} & found
    assert may_name_file("a.csv")
    assert not may_name_file("")


def test_a_syntax_error_comes_out() -> None:
    with pytest.raises(SyntaxError):
        analyse("x = = 1")


# --- digest


def digest(source: str) -> str:
    return tree_digest(parse(TRANSFORM(source)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x=1  # comment"),
        ("x = 1\ny = 2", "\n\nx = 1\n\n\ny = 2\n"),
        ("x = 'a'", 'x = "a"'),
        ("f(a, b)", "f(\n    a,\n    b,\n)"),
        ("x = 'ab'", "x = 'a' 'b'"),
        ("x = (1)", "x = 1"),
        ("x = 1; y = 2", "x = 1\ny = 2"),
        ("x = 0x10", "x = 16"),
        ("%%time\nx = 1", "%%time\nx  =  1 # fast"),
    ],
)
def test_formatting_does_not_matter(one: str, other: str) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = '1'", "x = 1"),
        ("x = None", "x = ..."),
        ("x = 0.0", "x = -0.0"),
        ("x = 1", "y = 1"),
        ("x = y", "x == y"),
        ("f(a)", "f(*a)"),
        ("f(a=b)", "f(**b)"),
        ("{**a}", "{a: a}"),
        ("def f(*, a, b=1): 0", "def f(*, a=1, b): 0"),
        ("x = [1, [2]]", "x = [[1], 2]"),
        ("'''doc'''", "'''dog'''"),
        ("%time x = 1", "%timeit x = 1"),
        ("%%time\nx = 1", "%%time\nx = 2"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("async def f(): 0", "def f(): 0"),
        ("x = 'a'", "x = 'A'"),
        ("f'{a}'", "f'{a!r}'"),
        ("a.b", "a['b']"),
    ],
)
def test_all_else_matters(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def test_the_digest_is_pinned() -> None:
    """It stands in people's stores: whoever changes it raises model.FORMAT."""
    source = "def f(a, *b, c=1, **d):\n    return {a: b, **d}\n\nx = [f(i) for i in 'ab' if i] or None\n"
    assert tree_digest(ast.parse(source)) == "61c222576a923ccb694e8e9d187c8fd8"


def test_the_digest_does_not_depend_on_the_process() -> None:
    program = (
        "import ast, sys; from prefect_cache.cells.analysis import tree_digest as t; print(t(ast.parse(sys.argv[1])))"
    )
    source = "x = {'a', 'b'} | {*y}"
    found = {
        subprocess.run(
            [sys.executable, "-c", program, source],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert found == {tree_digest(ast.parse(source)) + "\n"}
