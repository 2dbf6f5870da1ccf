"""Houses that break one rule each, and what the rule says then: the proof that it can fail."""

GOOD = '"""A module that says what it is."""\n'
# The rule, a house that breaks it, and what it then says.
BAD: list[tuple[str, dict[str, str], str]] = [
    ("homeless", {"gateway/attic.py": GOOD}, "on no floor"),
    (
        "upward_imports",
        {"gateway/keys.py": GOOD, "gateway/store/keys.py": "from gateway.keys import Key"},
        "machinery imports gateway.keys above it (policy)",
    ),
    (
        "upward_imports",
        {
            "gateway/api/keys.py": GOOD,
            "gateway/keys.py": "if TYPE_CHECKING:\n    from gateway.api import keys",
        },
        "policy imports gateway.api.keys above it (edges)",
    ),
    (
        "upward_imports",
        {"gateway/server.py": GOOD, "gateway/proxy.py": "def f():\n    import gateway.server"},
        "policy imports gateway.server above it",
    ),
    ("imports_across", {"gateway/keys.py": GOOD, "promptlab/lab.py": "import gateway.keys"}, "promptlab.lab imports"),
    (
        "imports_across",
        {"gateway/proxy.py": "from promptlab import lab", "promptlab/lab.py": GOOD},
        "gateway.proxy imports",
    ),
    (
        "cycles",
        {
            "gateway/keys.py": "from gateway import limits",
            "gateway/limits.py": "import gateway.usage",
            "gateway/usage.py": "def f():\n    from gateway.keys import Key",
        },
        "gateway.keys → gateway.limits → gateway.usage → gateway.keys",
    ),
    ("closed_doors", {"gateway/proxy.py": "import httpx"}, "httpx has another door (promptlab.client"),
    (
        "closed_doors",
        {"gateway/proxy.py": "def f():\n    from sqlalchemy.orm import Session"},
        "sqlalchemy has another",
    ),
    ("closed_doors", {"gateway/proxy.py": "importlib.import_module('litellm')"}, "litellm has another door"),
    ("closed_doors", {"gateway/proxy.py": "import leftpad"}, "leftpad has another door (none"),
    ("closed_doors", {"promptlab/ports.py": "from sqlalchemy import Table"}, "sqlalchemy has another door"),
    ("environment_readers", {"gateway/keys.py": "import os\nprint(os.environ['HOME'])"}, "os.environ belongs to"),
    ("environment_readers", {"gateway/keys.py": "from os import getenv"}, "os.getenv belongs to"),
    ("eager_imports", {"gateway/providers/litellm.py": "import litellm.utils"}, "inside the function"),
    (
        "eager_imports",
        {"gateway/server.py": "from promptlab.workbench import app", "promptlab/workbench/app.py": GOOD},
        "promptlab.workbench.app must be imported inside",
    ),
    ("traps", {"gateway/server.py": "class Slow(BaseHTTPMiddleware): ..."}, "it breaks streaming"),
    ("traps", {"gateway/server.py": "import httpx\nhttpx.ASGITransport(app)"}, "in one piece"),
    ("too_long", {"gateway/keys.py": "x = 1\n" * 401}, "401 lines, at most 400"),
    (
        "too_long",
        {"gateway/keys.py": "class A:\n  def f(self):\n" + "    x = 1\n" * 60},
        "A.f has 61 lines, at most 60",
    ),
    ("undocumented", {"gateway/keys.py": "x = 1"}, "gateway/keys.py: its docstring"),
    ("undocumented", {"gateway/keys.py": GOOD + "class Key:\n    pass"}, "Key's docstring"),
    ("undocumented", {"gateway/keys.py": GOOD + "def find():\n    '''finds a key'''"}, "find's docstring"),
    (
        "undocumented",
        {"gateway/keys.py": GOOD + "class Key:\n    '''A key.'''\n    def find(self):\n        pass"},
        "Key.find's docstring",
    ),
    ("wrong_words", {"gateway/keys.py": "def all_endpoints(): ..."}, "we say routes, not endpoints"),
    ("wrong_words", {"gateway/keys.py": "class QuotaReached: ..."}, "we say limit, not quota"),
    ("wrong_words", {"gateway/keys.py": "def f(target): ..."}, "we say deployment, not target"),
    ("wrong_words", {"gateway/keys.py": "self.vendor = 1"}, "we say provider, not vendor"),
    ("wrong_words", {"gateway/failover.py": GOOD}, "we say fallback, not failover"),
    ("unfinished", {"gateway/keys.py": "x = 1  # TODO: later"}, "TODO: later"),
    ("unfinished", {"gateway/keys.py": "def f():\n    raise NotImplementedError"}, "NotImplementedError"),
    ("unnamed_stores", {"gateway/store/boots.py": GOOD}, "speaks of boots"),
]
