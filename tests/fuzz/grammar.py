"""Random notebooks, in the words in which notebooks are written.

A statement is a template whose holes name kinds: ``{xs}`` is one of the names that lists go by (``{xs2}`` another one, or
the same), ``{n}`` one of the numbers', ``{#}`` a small number, ``{?}`` a short string; other braces are doubled. Names
are few, so that statements meet: they alias, rebind, change in place and delete what others made. What a statement needs
is bound before it, mostly; where it is not, because cells run in any order, the cell raises, in both worlds alike.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING

from history import Remove, Restart, Run, Write

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from history import History, Step

NAMES = {
    "n": ("n", "m", "k"),
    "s": ("s", "t"),
    "xs": ("xs", "ys", "zs"),
    "d": ("d", "e"),
    "u": ("u", "v"),
    "a": ("a", "b", "c"),
    "df": ("df", "dg", "dh"),
    "sr": ("sr", "col"),
    "f": ("f", "g", "h"),
    "P": ("P", "Q"),
    "p": ("p", "q", "r"),
    "rng": ("rng", "gen"),
    "it": ("it",),
    "any": ("n", "s", "xs", "ys", "d", "a", "b", "df", "sr", "p", "u"),
    "made": ("xs", "ys", "d", "e", "a", "b", "df", "dg", "p", "u"),
}

MAKE = {
    "n": ("{n} = {#}", "{n} = {#} * 1.5", "{n} = True", "{n} = len('{?}')"),
    "s": ("{s} = '{?}'", "{s} = f'{?}-{{{#}}}'", "{s} = '{?}' * {#}"),
    "xs": (
        "{xs} = [{#}, {#}, {#}]",
        "{xs} = list('{?}')",
        "{xs} = [[{#}], [{#}]]",
        "{xs} = list(range(1000))",
        "{xs} = []",
    ),
    "d": (
        "{d} = {{'a': {#}, 'b': [{#}]}}",
        "{d} = {{}}",
        "{d} = defaultdict(list, a=[{#}])",
        "{d} = Counter('{?}')",
        "{d} = {{1: 'one', (2, 3): 'two', None: {{'deep': [{#}]}}}}",
    ),
    "u": (
        "{u} = {{{#}, {#}}}",
        "{u} = set('{?}')",
        "{u} = frozenset([{#}])",
        "{u} = deque([{#}, {#}], maxlen=3)",
        "{u} = bytearray(b'{?}')",
    ),
    "a": (
        "{a} = np.arange({#} + 4.0)",
        "{a} = np.arange(12).reshape(3, 4)",
        "{a} = np.linspace(0, 1, 1000)",
        "{a} = np.array(['{?}', '{?}'])",
        "{a} = np.array([{#}, None, 'x'], dtype=object)",
        "{a} = np.zeros((40, 20), order='F')",
        "{a} = np.array(['2013-01-01', 'NaT'], dtype='M8[D]')",
    ),
    "df": (
        "{df} = pd.DataFrame({{'x': [1, 2, 3, {#}], 'y': [1.5, None, 2.5, {#}], 'k': list('abab')}})",
        "{df} = pd.DataFrame({{'x': range(500), 'y': np.arange(500) / 7, 'k': ['a', 'b'] * 250}})",
        "{df} = pd.DataFrame({{'x': [1, 2], 'k': pd.Categorical(['a', 'b'])}}, index=pd.Index([10, 20], name='id'))",
        "{df} = pd.DataFrame({{'x': pd.array([1, None, {#}], dtype='Int64'), 'y': [0.5, 1.5, 2.5], 'k': ['a', None, 'b']}})",
        "{df} = pd.DataFrame({{'x': [1, 2, 3], 'y': [4.0, 5.0, {#}], 't': pd.date_range('2013-01-01', periods=3, tz='UTC')}})",
        "{df} = pd.DataFrame({{'x': [1, 2], 'o': [[{#}], {{'q': 1}}], 'y': [True, False]}})",
        "{df} = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=['x', 'y', 'z'])",
        "{df} = pd.DataFrame({{'x': np.arange(600, dtype='f4'), 'y': pd.timedelta_range('1h', periods=600)}})",
        "{df} = pd.DataFrame({{'x': [], 'y': []}})",
        "{df} = pd.DataFrame({{'x': [1, 2, {#}], 'k': ['a', None, 'b'], 'l': list('xyz'), 't': pd.to_datetime(['2013-01-01', None, '2013-02-01']), 'y': [1.5, None, 2]}})",
        "{df} = pd.DataFrame({{'x': [{#}, 2], 'k': pd.Series(['a', 'b'], dtype=object), 'l': pd.array(['c', None], dtype='string'), 'm': ['d', '{?}']}})",
    ),
    "sr": (
        "{sr} = pd.Series([{#}, 2, 3], name='{?}')",
        "{sr} = pd.Series(range(800), dtype='f8')",
        "{sr} = pd.Series(['a', 'b', None], index=pd.date_range('2020', periods=3))",
        "{sr} = pd.Series([1, 2], index=pd.MultiIndex.from_tuples([('a', 1), ('b', 2)]))",
        "{sr} = pd.Series([[1], [2]], index=['i', 'j'])",
    ),
    "f": (
        "def {f}(v):\n    return v + {n}",
        "def {f}(v, seen=[]):\n    seen.append(v)\n    return len(seen)",
        "def {f}(v):\n    global {n}\n    {n} = {n} + 1\n    return v * 2",
        "def {f}(v):\n    {xs}.append(v)\n    return len({xs})",
        "def {f}(v):\n    return {f2}(v) + 1 if callable({f2}) and v < 3 else v",
        "{f} = lambda v: v * {#}",
        "def make(k):\n    total = 0\n    def inner(v):\n        nonlocal total\n        total += v + k\n        return total\n    return inner\n{f} = make({#})",
        "{f} = functools.partial(operator.add, {#})",
        "@functools.lru_cache\ndef {f}(v):\n    return v + {#}",
        "def twice(func):\n    @functools.wraps(func)\n    def wrapper(v):\n        return func(func(v))\n    return wrapper\n@twice\ndef {f}(v):\n    return v + {n}",
        "def {f}(v):\n    try:\n        return v / {n}\n    except ZeroDivisionError:\n        return {#}",
        "def {f}(v):\n    import helper\n    return helper.scale(v)",
    ),
    "P": (
        "class {P}:\n    count = {#}\n    def __init__(self, x):\n        self.x = x\n        self.items = []\n    def bump(self):\n        self.x += {n}\n        type(self).count += 1\n        return self",
        "@dataclass\nclass {P}:\n    x: int\n    items: list = dataclasses.field(default_factory=list)\n    def bump(self):\n        self.items.append(self.x)\n        return self",
        "class {P}(list):\n    def __init__(self, x=0):\n        super().__init__([x])\n        self.x = x\n        self.items = self\n    def bump(self):\n        self.append(self.x)\n        return self",
        "class {P}:\n    __slots__ = ('x', 'items')\n    def __init__(self, x):\n        self.x, self.items = x, [x]\n    def bump(self):\n        self.x *= 2\n        return self",
        "class Base:\n    rate = {#}\n    def bump(self):\n        self.x += self.rate\n        return self\nclass {P}(Base):\n    def __init__(self, x):\n        self.x, self.items = x, {{}}",
        "class {P}(enum.Enum):\n    RED = {#}\n    BLUE = 'b'",
    ),
    "p": (
        "{p} = {P}({#})",
        "{p} = {P}({n})",
        "{p} = type('Tmp', (), {{}})()",
        "{p} = Path('in.txt')",
        "{p} = namedtuple('Pair', 'x items')({#}, [])",
    ),
    "rng": ("{rng} = np.random.default_rng({#})", "{rng} = random.Random({#})", "{rng} = np.random.RandomState({#})"),
    "it": (
        "{it} = iter({xs})",
        "{it} = (i * {#} for i in range(4))",
        "{it} = zip({xs}, {xs})",
        "{it} = itertools.count({#})",
        "{it} = enumerate('{?}')",
    ),
}
"""How a value of each kind comes to be."""

CHANGE = (
    # numbers, strings, tuples
    "{n} = {n} + {#}", "{n} += 1", "{n}, {n2} = {n2}, {n}", "{n} = len({xs})", "{n} = sum(i * i for i in range({#}))", "{n} = ({s}, {n}, {xs})",
    "{s} = {s} + '{?}'", "{s} = f'{{{n}}}:{{len({xs})}}'", "{s} = '{?}'.join(map(str, {xs}))", "{n} = round({n} / 3, 2)",
    "if (size := len({xs})) > 2:\n    {n} = size\nelse:\n    {s} = 'few'",
    "match {n}:\n    case 0 | 1:\n        {s} = 'small'\n    case int(whole):\n        {s} = f'whole {{whole}}'\n    case _:\n        {s} = 'other'",
    # lists
    "{xs}.append({n})", "{xs}.append({#})", "{xs} += [{#}]", "{xs} = {xs} + [{#}]", "{xs} = {xs2}", "{xs} = list({xs2})", "{xs} = [{xs2}, {xs2}]",
    "{xs}.sort(key=str)", "{xs}.reverse()", "{xs}[0] = {n}", "{xs}[:] = [{#}, {#}]", "del {xs}[0]", "{xs}.clear()", "{xs}.append({xs})", "{xs}.append({d})",
    "{xs}.extend({xs2})", "{xs}.insert(0, '{?}')", "{n} = {xs}.pop()", "{xs}, {xs2} = {xs2}, {xs}", "first, *rest = {xs}", "{xs} = [i * 2 for i in {xs}]",
    "for i in range(3):\n    {xs}.append(i)", "while len({xs}) < 5:\n    {xs}.append(len({xs}))", "{xs} = sorted(map(str, {xs}))", "{xs}[0].append({#})", "{xs} = copy.deepcopy({xs2})",
    "for {n} in {xs}[:4]:\n    pass", "{xs} = [{any}, {any}]", "{xs}[-1] = {made}", "{xs} *= 2", "{xs} = {xs}[1:3]",
    # dicts, sets and other containers
    "{d}['a'] = {n}", "{d}[{s}] = {n}", "{d}['xs'] = {xs}", "{d} = {d2}", "{d} = dict({d2})", "{d}.setdefault('l', []).append({#})", "{d}.update({d2})", "{d}.pop('a', None)",
    "del {d}['a']", "{d}['self'] = {d}", "{d} = {{i: str(i) for i in {xs}[:3]}}", "{d}['b'].append({n})", "{d} |= {{'z': {#}}}", "{d} = {{'made': {made}, 'n': {n}}}", "{xs} = list({d}.values())",
    "{d}.clear()", "{d}['f'] = {f}", "{d}['deep'] = {{'xs': {xs}, 'd': {d2}}}", "{xs} = list({d}.items())", "{d}.popitem()",
    "{u}.add({#})", "{u} |= {{{#}}}", "{u} = {u2}", "{u}.discard({#})", "{n} = len({u})", "{u}.append({#})", "{u}.rotate(1)", "{u} = set({xs})", "{u}.extend(b'zz')",
    # arrays
    "{a}[0] = {#}", "{a} += 1", "{a} = {a} * 2", "{a} = {a2}", "{a} = {a2}.copy()", "{a} = {a2}[::2]", "{a} = {a2}.T", "{a} = {a2}.reshape(-1)", "{a}.sort()", "{a}[{a} > 3] = 0",
    "{n} = float({a}.sum())", "{n} = {a}.mean()", "{a}.flags.writeable = False", "np.add({a}, 1, out={a})", "{a} = np.concatenate([{a2}, {a2}])", "{a} = {a2}.astype('f4')", "{a}.fill({#})",
    "{a}[1:] = {a}[:-1]", "{a} = {a2} > {#}", "{a} = {a2}.view()", "{a}.shape = (-1,)", "{a} = np.array({xs})", "{xs} = {a}.tolist()", "{d}['a'] = {a}", "{d}['a'] = {a}[1:]", "{a} = np.where({a2} > 1, {a2}, 0)",
    "{xs} = [{a}, {a}[1:3]]", "{a} = np.frombuffer(b'{?}abc', dtype='u1')", "{a} = {df}['x'].to_numpy(copy=True)", "{a} = {df}.to_numpy()",
    # frames
    "{df} = {df2}", "{df} = {df2}.copy()", "{df}['z'] = {df}['x'] * 2", "{df}['z'] = {n}", "{df}.loc[{df}['x'] > 1, 'y'] = {#}", "{df} = {df2}[{df2}['x'] > 1]", "{df}['x'] += 1",
    "{df} = {df2}.rename(columns={{'x': 'y', 'y': 'x'}})", "{df}.columns = [str(c).upper() for c in {df}.columns]", "{df}.columns = [str(c).lower() for c in {df}.columns]", "{df}.index.name = '{?}'",
    "{df}.sort_values('x', ascending=False, inplace=True)", "{df}.reset_index(drop=True, inplace=True)", "{df} = {df2}.reset_index()", "{df}.at[{df}.index[0], 'x'] = {#}", "{df}.iloc[0, 0] = {#}",
    "{df}.attrs['n'] = {n}", "{df}.attrs['xs'] = {xs}", "{sr} = {df}['x']", "{sr} = {df}['y'].fillna(0)", "{df}.insert(0, 'new{#}', {#})", "{sr} = {df}.pop('y')", "del {df}['x']",
    "{df} = {df2}.assign(w=lambda t: t['x'] + {n})", "{df} = {df2}.merge({df2}, on='x', how='left')", "{sr} = {df}.groupby('k')['x'].sum()", "{df} = {df2}.groupby('k', as_index=False).agg({{'x': 'mean'}})",
    "{df}.fillna({{'y': 0}}, inplace=True)", "{df} = {df2}.query('x > @{n}')", "{df}.eval('q = x + @{n}', inplace=True)", "{df} = {df2}.eval('x * {#}').to_frame('x')", "{df} = pd.concat([{df2}, {df2}])",
    "{df} = {df2}.set_index('k')", "{df}.set_index('x', inplace=True)", "{df} = {df2}.head(2)", "{df} = {df2}.astype({{'x': 'float64'}})", "{df} = {df2}.sort_index()", "{df}.drop(columns='y', inplace=True)",
    "{df} = {df2}.pivot_table('x', index='k', aggfunc='sum')", "{df} = {df2}.T", "{df} = {df2}.describe()", "{df}['k'] = {df}['k'].astype('category')", "{df}['o'] = [[i] for i in range(len({df}))]",
    "{df}['o'].iloc[0].append({#})", "{df}['m'] = {df}['x'].map({f})", "{d}['df'] = {df}", "{xs} = [{df}, {df2}]", "{xs} = list({df}['x'])", "{df}.x.array[0] = {#}", "{df}.flags.allows_duplicate_labels = False",
    "{df}['c'] = {df}['y'].cumsum()", "for column in list({df}):\n    {df}[column] = {df}[column].shift(1)", "{n} = {df}['x'].sum()", "{n} = len({df})", "{s} = {df}.columns[0]", "{df} = {df2}.iloc[::-1]", "{df} = {df2}[['x']]",
    "{df} = pd.DataFrame({xs}, columns=['x'])", "{df} = pd.DataFrame({{'x': {a}}})", "{df} = {df2}.drop_duplicates('k')", "{df}.index = range(10, 10 + len({df}))", "{df}.columns.name = '{?}'", "{df} = {df2}.melt()", "{df} = {df2}.mask({df2} == 1)",
    "with pd.option_context('display.precision', 2):\n    {s} = str({df}.head(1))", "idx = {df}.index", "{df}.index = idx", "{df} = pd.get_dummies({df2}, columns=['k'])", "{df}.rename_axis('r', inplace=True)", "{df}.update({df2})",
    "{df}.note = '{?}'", "{df}.kept = {d}", "{s} = getattr({df}, 'note', '')", "{df}.dropna(inplace=True)", "{df}['p'] = {df}['t'].dt.to_period('M')", "{df}['l'] = {df}['l'].str.upper()", "{df}.loc[{df}['y'].isna(), 'y'] = 0",
    "{df}.to_parquet('df.parquet'); {df} = pd.read_parquet('df.parquet')", "{df}.to_pickle('df.pkl')", "{sr}.unit = '{?}'",
    # Series
    "{sr}.iloc[0] = {#}", "{sr} = {sr2}", "{sr} = {sr2} * 2", "{sr}.name = '{?}'", "{df}['s'] = {sr}", "{sr} = {sr2}.sort_values()", "{sr}.index = range(len({sr}))", "{sr} = {sr2}.copy()", "{sr} = {sr2}.astype(str)", "{sr} = pd.Series({xs})",
    "{sr} += 1", "{sr} = {sr2}.rolling(2).sum()", "{sr}.loc['new'] = {#}", "{sr} = {sr2}.value_counts()", "{sr} = {sr2}.astype('category')", "{sr}.attrs['k'] = '{?}'", "{d}['sr'] = {sr}",
    # functions
    "{n} = {f}({#})", "{n} = {f}({n})", "{xs} = [{f}(i) for i in range(3)]", "{f} = {f2}", "{f}.calls = getattr({f}, 'calls', 0) + 1", "{xs} = [{f}, {f2}]", "{n} = {xs}[0]({#})", "{xs} = list(map({f}, [1, 2]))",
    "{sr} = {sr}.map({f})", "{s} = {f}.__name__", "{f}.__defaults__ = ({#},)", "{d} = {{'f': {f}, 'n': {f}(1)}}", "{p}.hook = {f}", "{p}.hook({#})",
    # classes and instances
    "{p}.x = {n}", "{p}.bump()", "{p} = {p2}", "{p}.items = {xs}", "{p}.items.append({#})", "{P}.count = {#}", "{n} = {p}.x", "{n} = isinstance({p}, {P})", "{xs}.append({p})", "{d}['p'] = {p}", "{p} = copy.copy({p2})", "{P}.extra = {xs}",
    "{p}.note = '{?}'", "del {p}.x", "{p}.other = {p2}", "{p}.me = {p}", "setattr({p}, 'x', {#})", "{p}.__dict__.update(x={#})", "{n} = type({p}).__name__", "{p} = {P}.RED", "def bump(self):\n    return {#}\n{P}.bump = bump", "{p}.df = {df}", "{p}.df['z'] = {#}",
    # iterators and generators
    "{n} = next({it})", "{n} = next({it}, -1)", "{xs} = list(itertools.islice({it}, 2))", "{xs} = list({it})", "{d}['it'] = {it}",
    # randomness
    "{n} = {rng}.random()", "{xs} = [{rng}.random() for _ in range(2)]", "{n} = random.random()", "{a} = np.random.rand(3)", "random.shuffle({xs})", "random.seed({#})", "np.random.seed({#})", "{rng}.shuffle({xs})", "{df} = {df2}.sample(frac=1, random_state={#})",
    "{df} = {df2}.sample(2)", "{n} = np.random.randint(100)", "{d}['rng'] = {rng}", "{a} = {rng}.normal(size=3)", "{rng} = {rng2}",
    # files
    "{s} = open('in.txt').read()", "{s} = Path('in.txt').read_text()", "{df} = pd.read_csv('in.csv')", "{d} = json.loads(Path('in.json').read_text())", "Path('out.txt').write_text(str({n}))", "with open('log.txt', 'a') as log:\n    log.write('{?}\\n')",
    "{df}.to_csv('out.csv', index=False)", "{df} = pd.read_csv('out.csv')", "{s} = Path('out.txt').read_text()", "{n} = os.path.exists('maybe.txt')", "{xs} = sorted(os.listdir('.'))", "{xs} = sorted(glob.glob('*.txt'))", "Path('out.txt').unlink(missing_ok=True)",
    "if os.path.exists('maybe.txt'):\n    {s} = open('maybe.txt').read()\nelse:\n    {s} = 'nothing'", "name = 'in' + '.txt'\nwith open(name) as lines:\n    {n} = len(lines.readlines())", "json.dump({d}, open('out.json', 'w'), default=str)", "{d} = json.load(open('out.json'))",
    "np.save('a.npy', {a})", "{a} = np.load('a.npy')", "pickle.dump({xs}, open('x.pkl', 'wb'))", "{xs} = pickle.load(open('x.pkl', 'rb'))", "os.makedirs('sub', exist_ok=True)", "Path('sub/deep.txt').write_text('{?}')", "{n} = sum(1 for _ in Path('.').rglob('*.txt'))",
    "os.replace('out.txt', 'moved.txt')", "out = !cat in.txt", "{df}.to_parquet('x.parquet')", "{df} = pd.read_parquet('x.parquet')", "{n} = os.path.getsize('in.txt')", "{s} = Path({s}).name", "{n} = Path('in.csv').stat().st_size", "with open('out.txt', 'r+') as file:\n    file.write('{?}')",
    # modules of the user's own
    "import helper\n{n} = helper.scale({#})", "from helper import scale\n{n} = scale({n})", "import helper\nhelper.RATE = {#}", "import helper\n{n} = helper.RATE", "import helper\n{n} = helper.keep({#})", "import importlib, helper\nhelper = importlib.reload(helper)", "import helper as aid\n{xs} = aid.ITEMS",
    "import math as maths\n{n} = maths.floor({n})", "from collections import *\n{d} = Counter('{?}')", "import string\n{s} = string.digits",
    # the process
    "os.environ['FUZZ_X'] = '{?}'", "{s} = os.environ.get('FUZZ_X', 'none')", "os.environ.pop('FUZZ_X', None)", "pd.set_option('display.precision', {#} + 2)", "{n} = pd.get_option('display.precision')", "pd.options.display.max_rows = {#} + 10",
    "if Path.cwd().name != 'sub':\n    os.makedirs('sub', exist_ok=True)\n    os.chdir('sub')", "if Path.cwd().name == 'sub':\n    os.chdir('..')", "sys.path.append('lib')", "key = 'FUZZ_' + 'X'\n{s} = os.environ.get(key)", "warnings.simplefilter('ignore')",
    # deletion
    "del {n}", "del {any}", "{any} = None", "if '{any}' in globals():\n    del {any}", "del {f}", "{any} = {any}",
    # errors and control
    "try:\n    {n} = 1 / {n}\nexcept ZeroDivisionError:\n    {n} = {#}", "try:\n    {s} = undefined_name\nexcept NameError as error:\n    {s} = str(error)", "{xs}.append({#})\nraise ValueError('{?}')", "assert {n} != {#}, 'unlucky'", "1 / ({n} - {#})", "try:\n    {xs}.append({#})\nfinally:\n    {s} = 'done'",
    "with contextlib.suppress(Exception):\n    {xs}.append({#})\n    raise KeyError('{?}')", "with contextlib.suppress(Exception):\n    {n} = {n} / 0", "for i, item in enumerate({xs}):\n    if i > 2:\n        break\n    {s} = str(item)[:9]\nelse:\n    {s} = 'all'",
    "def main():\n    local = {xs}\n    local.append({#})\n    return local\n{xs2} = main()", "[{xs}.append(i) for i in range(2)]", "lines = []\nfor key in {d}:\n    lines.append(str(key))", "async def later(v):\n    return v + {#}\n{n} = await later({n})",
    # out of sight
    "exec('{n} = {#}')", "{n} = eval('{n} + {#}')", "globals()['{n}'] = {#}", "{xs} = sorted(name for name in globals() if len(name) == 1 and name != '_')",
)  # fmt: skip
"""What is done with what is there."""

SHOW = (
    "print({n}, {s})", "print({xs})", "print('{?}')", "display({df})", "print({d})", "print('err: {?}', file=sys.stderr)", "print({df}.shape, list({df}.columns))", "display({n})", "print(repr({s}))", "print(type({p}).__name__)", "print({sr})",
    "handle = display('{?}', display_id='{?}')", "print('gone')\nclear_output()\nprint('stays')", "for i in range(3):\n    print(i, end=' ')", "print({a})", "print({xs} is {xs2}, {df} is {df2})",
)  # fmt: skip

LAST = (
    "{n}",
    "{xs}",
    "{df}",
    "{df}.head(3)",
    "{d}",
    "{s}",
    "{sr}",
    "{n};",
    "{a}",
    "{p}",
    "{xs}.append({#})",
    "{df}['x'].sum()",
    "({n}, {s})",
    "{f}({#})",
    "_",
    "{any}",
    "{df}.dtypes",
    "None",
    "{u}",
)

OPTIONS = ("", "", "", "", "", "name", "--refresh", "--pin", "--tags x", "--files '*.txt'", "--ttl 1h")
"""Not ``--outputs`` and ``--ignore``: with those a person asks for less than the whole truth."""

EDITS = {
    "in.txt": ("one\ntwo\nthree\n", "one\nTWO\nthree\n", "changed\n", ""),
    "in.csv": (
        "x,y,k\n1,2.5,a\n2,,b\n3,4.5,a\n4,1.5,c\n",
        "x,y,k\n9,2.5,a\n2,,b\n3,4.5,a\n4,1.5,c\n",
        "x,y,k\n1,1,z\n",
    ),
    "in.json": ('{"rate": 2.5, "names": []}', '{"a": 1, "b": [2]}'),
    "maybe.txt": ("here it is\n",),
    "more.txt": ("more\n",),
    "helper.py": tuple(
        f"RATE = {rate}\nITEMS = {items}\n\n\ndef scale(v):\n    return v * RATE + {extra}\n\n\ndef keep(v):\n    ITEMS.append(v)\n    return len(ITEMS)\n"
        for rate, items, extra in ((2, "[]", 0), (3, "[]", 0), (2, "[1]", 0), (2, "[]", 1))
    ),
}

ERRORS = 0.05
"""Of the statements that raise, so many stay."""

_BINDS = re.compile(r"(?:^|\n|def |class )\{(\w+)\}(?: = |\(|:)")
WORDS = ("ab", "zed", "north", "x1", "due")


class Grammar:
    """Makes histories out of chance; equal seeds give equal histories.

    `works` tells whether a statement runs after those before it: most that do not are left out, else one error in the
    first cell leaves the others nothing to work with.
    """

    def __init__(self, chance: Random, works: Callable[[str], bool] = lambda _: True) -> None:
        self._chance = chance
        self._works = works
        # A notebook is about some things and not about others: statements meet more often when kinds are few.
        self._kinds = set(chance.sample(sorted(MAKE), chance.randint(3, 7))) | {"n"}
        self._bound: dict[str, list[str]] = {}
        self._needed: list[str] = []
        self._changes = [t for t in CHANGE if _kinds_of(t) <= self._kinds | {"any", "made"}]
        self._shows = [t for t in (*SHOW, *LAST) if _kinds_of(t) <= self._kinds]

    def history(self) -> History:
        """Return cells run in order, then what people do: run again, edit, restart, go back, change files."""
        cells = [self._cell(first=number == 0) for number in range(self._chance.randint(3, 6))]
        steps: list[Step] = list(cells)
        for _ in range(self._chance.randint(3, 7)):
            steps += self._act(cells)
        return tuple(steps)

    def _act(self, cells: list[Run]) -> list[Step]:
        chance = self._chance
        match chance.choices(("all", "one", "edit", "file", "remove", "back"), (5, 4, 4, 3, 1, 2))[0]:
            case "all":
                return [Restart(), *cells]
            case "one":
                return [chance.choice(cells)]
            case "edit":
                where = chance.randrange(len(cells))
                cells[where] = self._edited(cells[where])
                return list(cells[where:]) if chance.random() < 0.5 else [cells[where]]
            case "file":
                file = chance.choice(list(EDITS))
                return [Write(file, chance.choice(EDITS[file])), *chance.choice(([], cells, [Restart(), *cells]))]
            case "remove":
                return [Remove(chance.choice(("out.txt", "out.csv", "maybe.txt", "log.txt", "in.txt"))), *cells]
            case _:
                order = chance.sample(cells, len(cells))
                return list(order[: chance.randint(1, len(order))])

    def _edited(self, cell: Run) -> Run:
        statements = list(cell.statements)
        where = self._chance.randrange(len(statements))
        match self._chance.randrange(4):
            case 0 if len(statements) > 1:
                del statements[where]
            case 1:
                statements[where:where] = self._statements(self._template())
            case 2:
                statements[where : where + 1] = self._statements(self._template())
            case _:
                statements[where] = re.sub(
                    r"\b\d\b", lambda _: str(self._chance.randrange(10)), statements[where], count=1
                )
        return Run(tuple(statements) or ("pass",), cell.cached, cell.options)

    def _cell(self, *, first: bool) -> Run:
        chance = self._chance
        kinds = sorted(self._kinds)
        wanted = chance.sample(kinds, len(kinds)) if first else chance.sample(kinds, chance.randint(0, 1))
        statements = [line for kind in wanted for line in self._statements(chance.choice(MAKE[kind]))]
        for _ in range(chance.randint(1, 4)):
            statements += self._statements(self._template())
        if chance.random() < 0.5:
            statements += self._statements(chance.choice([t for t in LAST if _kinds_of(t) <= self._kinds | {"any"}]))
        return Run(tuple(statements) or ("pass",), chance.random() < (0.6 if first else 0.85), chance.choice(OPTIONS))

    def _template(self) -> str:
        pool = self._shows if self._shows and self._chance.random() < 0.15 else self._changes
        return self._chance.choice(pool)

    def _statements(self, template: str) -> list[str]:
        """Fill a template, and put before it what makes the values that it is the first to need."""
        self._needed = []
        filled = self._fill(template)
        lines = [*self._needed, filled]
        return lines if self._works("\n".join(lines)) or self._chance.random() < ERRORS else []

    def _fill(self, template: str) -> str:
        chosen: dict[str, str] = {}
        bound = set(_BINDS.findall(template))
        return "".join(
            literal + ("" if hole is None else self._word(hole, chosen, binds=hole in bound))
            for literal, hole, *_ in Formatter().parse(template)
        )

    def _word(self, hole: str, chosen: dict[str, str], *, binds: bool) -> str:
        match hole:
            case "#":
                return str(self._chance.randrange(6))
            case "?":
                return self._chance.choice(WORDS)
            case "any" | "made":
                if hole not in chosen:
                    bound = [name for names in self._bound.values() for name in names if name in NAMES[hole]]
                    chosen[hole] = self._chance.choice(bound or ["n"])
                return chosen[hole]
            case _:
                if hole not in chosen:
                    chosen[hole] = self._name(_kind(hole), binds=binds)
                return chosen[hole]

    def _name(self, kind: str, *, binds: bool) -> str:
        """Choose a name that an earlier line has bound, mostly; what a line binds may be a new one."""
        bound = self._bound.setdefault(kind, [])
        if not bound and not binds:
            self._needed.append(self._fill(self._chance.choice(MAKE[kind])))
        if not bound or self._chance.random() < (0.3 if binds else 0.02):
            name = self._chance.choice(NAMES[kind])
            if binds and name not in bound:
                bound.append(name)
            return name
        return self._chance.choice(bound)


def _kind(hole: str) -> str:
    return hole.rstrip("2")


def _kinds_of(template: str) -> set[str]:
    holes = {_kind(hole) for _, hole, *_ in Formatter().parse(template) if hole}
    return holes & set(NAMES)
