"""Rules of the sources that no linter knows, each proved to catch what it is there for.

Money is never a float; imports point one way; the Lua scripts follow their conventions. A rule
returns complaints, `path:line: what`, so that a failure reads like a linter's output.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES_MAX = 70

# --- Python: no float near money -------------------------------------------------------------

#: Where amounts, prices and balances pass through, in Python and in Cython.
MONEY_SOURCES = (
    "authz/money.py",
    "authz/model.py",
    "authz/engine",
    "authz/ledger",
    "authz/rating",
    "authz/store",
    "ext/authz_ext",
)
#: Files among them that never see an amount, and what they reckon with floats instead.
#: Naming something of money in one of them is an error, so that the exception stays true.
MONEYLESS_SOURCES = {
    "authz/store/checks.py": "the share of the store's memory that is in use",
    "authz/store/client.py": "deadlines and back-off of connections",
    "authz/store/connection.py": "deadlines of commands in flight",
    "authz/store/embedded.py": "waiting for a server process to come up",
}
_MONEY_WORD = re.compile(r"micros|nanos|amount|balance|price", re.IGNORECASE)
#: Calls whose arguments are seconds of the event loop, never money.
_TIMER_CALLS = {"sleep", "timeout", "timeout_at", "wait", "wait_for", "call_later", "call_at"}
#: A number of seconds by its name; nothing of money is called so.
_SECONDS_NAME = re.compile(r"(^|_)(seconds|timeout)(_min|_max)?\Z", re.IGNORECASE)
#: A duration may become seconds of the event loop; what else is divided must say `//`.
_DURATION_NAME = re.compile(r"_(ms|us|ns)\Z", re.IGNORECASE)
#: A `/` after one of these joins paths.
_PATH_WORD = re.compile(
    r"(path|directory|folder|file|root|parent|parents|home|_dir)$", re.IGNORECASE
)


def python_sources(*places: str) -> list[Path]:
    """Return the Python files at `places`, which need not all exist yet."""
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.is_file()
    return found


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return _last_name(node.func) if isinstance(node, ast.Call) else ""


def _is_timer(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return _last_name(node) in _TIMER_CALLS
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
        return _SECONDS_NAME.search(_last_name(node.target)) is not None
    return isinstance(node, ast.keyword) and _SECONDS_NAME.search(node.arg or "") is not None


def _is_no_money(division: ast.BinOp) -> bool:
    is_duration = _DURATION_NAME.search(_last_name(division.left)) is not None
    return is_duration or _joins_paths(division)


def _joins_paths(node: ast.BinOp) -> bool:
    right_is_text = isinstance(node.right, ast.JoinedStr) or (
        isinstance(node.right, ast.Constant) and isinstance(node.right.value, str)
    )
    left_joins = (
        isinstance(node.left, ast.BinOp)
        and isinstance(node.left.op, ast.Div)
        and _joins_paths(node.left)
    )
    return right_is_text or left_joins or _PATH_WORD.search(_last_name(node.left)) is not None


def float_complaints(source: str, name: str) -> list[str]:
    """Complain of `float(...)`, float literals and true divisions outside of timers."""
    tree = ast.parse(source)
    timed = {id(inner) for node in ast.walk(tree) if _is_timer(node) for inner in ast.walk(node)}
    complaints = []
    for node in ast.walk(tree):
        if id(node) in timed:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            complaints.append(f"{name}:{node.lineno}: the float {node.value}")
        elif isinstance(node, ast.Call) and _last_name(node.func) == "float":
            complaints.append(f"{name}:{node.lineno}: a call of float")
        elif (
            isinstance(node, ast.BinOp | ast.AugAssign)
            and isinstance(node.op, ast.Div)
            and not (isinstance(node, ast.BinOp) and _is_no_money(node))
        ):
            complaints.append(f"{name}:{node.lineno}: a true division")
    return complaints


def cython_float_complaints(source: str, name: str) -> list[str]:
    """Complain of float and double, float literals and `/` in Cython code."""
    complaints = []
    # `except?` is Cython's; Python's tokenizer does not know the question mark.
    lines = io.StringIO(source.replace("?", " "))
    for token in tokenize.generate_tokens(lines.readline):
        number = token.string.lower()
        is_float = token.type == tokenize.NUMBER and (
            "." in number or ("e" in number and not number.startswith("0x"))
        )
        if is_float or token.string in {"float", "double", "/", "/="}:
            complaints.append(f"{name}:{token.start[0]}: {token.string}")
    return complaints


@pytest.mark.parametrize(
    "source",
    [
        "price = 0.5",
        "price = float(text)",
        "price = cost / 60",
        "price /= 60",
        "price = builtins.float(text)",
        "cost = amount_micros / 2 + sleep(0.5)",
        "price_per_seconds: Final = price_seconds_nanos / 2",
        "pay(amount=1.5)",
    ],
)
def test_the_float_rule_catches(source: str) -> None:
    assert float_complaints(source, "x.py")


@pytest.mark.parametrize(
    "source",
    [
        "cost = price // 60",
        "await asyncio.sleep(0.5)",
        "deck = directory / name / 'x.bin'",
        "due = time() + settings.deadline_ms / 1000",
        "_PAUSE_SECONDS: Final = 0.2",
        "connect(timeout=1.5)",
    ],
)
def test_the_float_rule_lets_pass(source: str) -> None:
    assert not float_complaints(source, "x.py")


@pytest.mark.parametrize(
    "source", ["cdef double x", "x = 1e6", "x = 1.5", "x = y / 60", "x /= 2", "<float>x"]
)
def test_the_cython_float_rule_catches(source: str) -> None:
    assert cython_float_complaints(source, "x.pyx")


def test_the_cython_float_rule_lets_integers_pass() -> None:
    source = 'cdef long f(int x) except? -1:\n    "0.5 / 2"\n    return 0x1e6 // x  # 0.5\n'
    assert not cython_float_complaints(source, "x.pyx")


def test_no_float_is_near_money() -> None:
    complaints = []
    for path in python_sources(*MONEY_SOURCES):
        name = str(path.relative_to(ROOT))
        source = path.read_text(encoding="utf-8")
        if name not in MONEYLESS_SOURCES:
            complaints += float_complaints(source, name)
        elif word := _MONEY_WORD.search(source):
            complaints.append(f"{name}: may use floats and yet names {word[0]!r}")
    for pattern in ("*.pyx", "*.pxd", "*.pxi"):
        for path in sorted((ROOT / "ext").rglob(pattern)):
            source = path.read_text(encoding="utf-8")
            complaints += cython_float_complaints(source, str(path.relative_to(ROOT)))
    assert complaints == []


# --- Python: imports point one way -----------------------------------------------------------


class Layer(NamedTuple):
    """A part of the package and what it must not import, directly."""

    place: str
    forbidden: tuple[str, ...]


_ADAPTERS = ("authz.hooks", "authz.admin", "authz.events", "authz.metrics")
_FRONT = ("authz.cli", "authz.server", "authz.demo")
#: What stands beside the engine: it reads what the store holds, and the engine knows none of it.
_BESIDE = ("authz.ledger", *_ADAPTERS)
_WORDS_ONLY = ("authz.store", "authz.rating", "authz.engine", *_BESIDE, *_FRONT)
_NETWORK = ("aiohttp", "httptools", "click", "rich")
#: adapters -> engine -> store, rating -> ext.
LAYERS = (
    *(
        Layer(f"authz/{module}.py", _WORDS_ONLY)
        for module in (
            "archived",
            "money",
            "reasons",
            "causes",
            "errors",
            "event_types",
            "model",
            "numbers",
            "log",
            "problems",
            "validation",
        )
    ),
    Layer("authz/meters", (*_WORDS_ONLY, *_NETWORK)),
    Layer("ext", ("authz", "asyncio", *_NETWORK)),
    Layer("authz/config", (*_WORDS_ONLY, *_NETWORK)),
    Layer("authz/store", ("authz.rating", "authz.engine", *_BESIDE, *_FRONT, *_NETWORK)),
    Layer("authz/rating", ("authz.engine", *_BESIDE, *_FRONT, *_NETWORK)),
    Layer("authz/engine", (*_BESIDE, *_FRONT, *_NETWORK)),
    Layer("authz/ledger", ("authz.engine", "authz.rating", *_ADAPTERS, *_FRONT, *_NETWORK)),
    Layer("authz/events", ("authz.hooks", "authz.admin", *_FRONT, "click", "rich")),
    Layer("authz/metrics", ("authz.hooks", "authz.admin", *_FRONT, "click", "rich")),
    Layer("authz/hooks", ("authz.admin", *_FRONT, "click", "rich")),
    Layer("authz/admin", ("authz.hooks", *_FRONT, "click", "rich")),
    Layer("authz", ("tests", "loadtest", "Cython", "setuptools")),
)
#: All knowledge of Redis is in one place: only it speaks the protocol.
STORE_LIBRARIES = ("hiredis", "redis")


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the absolute name of everything a module of `package` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*parents, node.module or ""] if node.level else [node.module or ""])
            for alias in node.names:
                yield node.lineno, f"{module.rstrip('.')}.{alias.name}"


def import_complaints(source: str, path: str, forbidden: tuple[str, ...]) -> list[str]:
    """Complain of each import of a forbidden package or of something inside one."""
    package = ".".join(Path(path).parts[:-1])
    return [
        f"{path}:{line}: imports {module}"
        for line, module in imported_modules(source, package)
        for banned in forbidden
        if module == banned or module.startswith(f"{banned}.")
    ]


@pytest.mark.parametrize(
    "source",
    [
        "import authz.engine",
        "from authz.engine import x",
        "from authz import engine",
        "from ..engine import x",
        "from .. import engine",
        "def f():\n    import authz.engine.settle",
    ],
)
def test_the_import_rule_catches(source: str) -> None:
    assert import_complaints(source, "authz/store/keys.py", ("authz.engine",))


def test_the_import_rule_lets_other_names_pass() -> None:
    source = "import authz.engineering\nfrom .engine import x"
    assert not import_complaints(source, "authz/store/keys.py", ("authz.engine",))


def test_imports_point_one_way() -> None:
    complaints = []
    for layer in LAYERS:
        for path in python_sources(layer.place):
            name = str(path.relative_to(ROOT))
            complaints += import_complaints(path.read_text(encoding="utf-8"), name, layer.forbidden)
    assert complaints == []


def test_only_the_store_package_speaks_redis() -> None:
    complaints = []
    for path in python_sources("authz"):
        name = str(path.relative_to(ROOT))
        if not name.startswith("authz/store/"):
            source = path.read_text(encoding="utf-8")
            complaints += import_complaints(source, name, STORE_LIBRARIES)
    assert complaints == []


# --- Python: shape ---------------------------------------------------------------------------


def shape_complaints(source: str, name: str) -> list[str]:
    """Complain of what every module of the daemon must have, or must not have."""
    tree = ast.parse(source)
    complaints = []
    if not ast.get_docstring(tree):
        complaints.append(f"{name}:1: no docstring")
    if "from __future__ import annotations" not in source:
        complaints.append(f"{name}:1: no `from __future__ import annotations`")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                complaints.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            complaints.append(f"{name}:{node.lineno}: a print")
        elif isinstance(node, ast.Assert) and name.startswith(MONEY_SOURCES):
            complaints.append(f"{name}:{node.lineno}: an assert, which vanishes under -O")
    return complaints


def test_the_shape_rule_catches() -> None:
    long_function = "def f():\n" + "    g()\n" * FUNCTION_LINES_MAX
    complaints = shape_complaints(f"print(1)\nassert True\n{long_function}", "authz/money.py")
    assert sorted(complaint.partition(" ")[2] for complaint in complaints) == [
        "a print",
        "an assert, which vanishes under -O",
        f"f has {FUNCTION_LINES_MAX + 1} lines",
        "no `from __future__ import annotations`",
        "no docstring",
    ]


def test_modules_have_their_shape() -> None:
    complaints = []
    for path in python_sources("authz", "ext", "lua"):
        source = path.read_text(encoding="utf-8")
        complaints += shape_complaints(source, str(path.relative_to(ROOT)))
    assert complaints == []


def test_every_extension_declares_its_layout_and_its_types() -> None:
    missing = [
        str(source.with_suffix(suffix).relative_to(ROOT))
        for place in ("ext", "loadtest")
        for source in sorted((ROOT / place).rglob("*.pyx"))
        for suffix in (".pxd", ".pyi")
        if not source.with_suffix(suffix).is_file()
    ]
    assert missing == []
