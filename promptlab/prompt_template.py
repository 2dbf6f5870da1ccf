"""Templates of registered prompts: what they ask for, and the text that MLflow's client makes of them. No IO.

A template is a text, or a list of messages. Where it holds `{% %}` it is Jinja's, in a sandbox; else
`{{ name }}` is replaced by the value of `name`, and nothing else is.

The client replaces one variable after the other, so that a value which holds `{{ other }}` is filled in
again. Here it is not: a value is its sender's text, never part of the template.

Source: https://github.com/mlflow/mlflow/blob/master/mlflow/entities/model_registry/prompt_version.py
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from promptlab.templates import VariablesMismatch

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

Message = dict[str, Any]

#: What a prompt may become at most, in letters: a template that grows beyond is broken, or means harm.
MAX_RENDERED = 10_000_000
#: Pieces that a Jinja template may write.
MAX_PIECES = 200_000
#: Steps that it may take, as Python counts lines: a second or so.
MAX_STEPS = 1_000_000
#: What an operation within one may make of a text or a list at once, or how many bits of a number.
MAX_OPERAND = 100_000

_VARIABLE = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*(?:\.[a-zA-Z_][a-zA-Z0-9_]*)*)\s*\}\}")


class TemplateFailed(ValueError):
    """The template cannot be rendered, whatever its values or with these. Says why."""


class PromptTemplate:
    """One prompt's template, read once. Safe to use from many threads."""

    def __init__(self, template: str | Sequence[Mapping[str, Any]]) -> None:
        """Raises `TemplateFailed` for what Jinja cannot read, and for messages that are none."""
        self.template = template
        self._texts = _texts(template)
        #: Whether Jinja renders it.
        self.is_jinja = any("{%" in text and "%}" in text for text in self._texts)
        # The client looks at messages as they are written in JSON, their roles too.
        whole = template if isinstance(template, str) else json.dumps(template)
        named = dict.fromkeys(_VARIABLE.findall(whole))
        self._jinja: dict[str, Template] = {}
        self._known: frozenset[str] = frozenset(named)
        # Most calls bring exactly the values that are asked for: then nothing is searched for.
        self._pieces = {text: _pieces(text) for text in self._texts}
        if self.is_jinja:
            self._jinja, undeclared = _read(self._texts)
            self._known |= undeclared
            named |= dict.fromkeys(sorted(undeclared - _globals()))
        #: The names of its variables, each once.
        self.variables = tuple(named)
        #: Those without a value for which nothing can be rendered. Jinja lets a template do without any.
        self.required = () if self.is_jinja else self.variables

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise `VariablesMismatch` unless `values` has a value for each variable that needs one, and no other."""
        if values.keys() == self._known and not self.is_jinja:
            return
        missing = tuple(name for name in self.required if name not in values)
        unknown = tuple(name for name in values if not self._asks_for(name))
        if missing or unknown:
            raise VariablesMismatch(missing, unknown)

    def render(self, values: Mapping[str, Any]) -> str | list[Message]:
        """The template with `values` in it: a text, or messages of a role and a content.

        Raises `VariablesMismatch`, and `TemplateFailed` where Jinja fails or there is no end of it.
        """
        self.check(values)
        render = self._rendered_by_jinja(values) if self.is_jinja else self._filled(values)
        if isinstance(self.template, str):
            return render(self.template)
        left = MAX_RENDERED

        def counted(text: str) -> str:
            nonlocal left
            rendered = render(text)
            left -= len(rendered)
            if left < 0:
                raise _too_long()
            return rendered

        return [{"role": one["role"], "content": _each_text(one.get("content"), counted)} for one in self.template]

    def _asks_for(self, name: str) -> bool:
        if name in self._known:
            return True
        written = re.compile(rf"\{{\{{\s*{re.escape(name)}\s*\}}\}}")
        return not self.is_jinja and any(written.search(text) for text in self._texts)

    def _filled(self, values: Mapping[str, Any]) -> Callable[[str], str]:
        if values.keys() != self._known:
            return _filled(values)
        texts = {name: str(value) for name, value in values.items()}

        def fill(text: str) -> str:
            pieces = self._pieces[text]
            filled = "".join([piece if name is None else texts.get(name, piece) for piece, name in pieces])
            if len(filled) > MAX_RENDERED:
                raise _too_long()
            return filled

        return fill

    def _rendered_by_jinja(self, values: Mapping[str, Any]) -> Callable[[str], str]:
        def render(text: str) -> str:
            pieces: list[str] = []
            length = 0
            try:
                with _counted_steps():
                    for piece in self._jinja[text].generate(**values):
                        length += len(piece)
                        pieces.append(piece)
                        if length > MAX_RENDERED or len(pieces) > MAX_PIECES:
                            raise _too_long()
                rendered = "".join(pieces)
                rendered.encode()  # an escape in it can make half a character, which no JSON has
            except TemplateFailed:
                raise
            except (Exception, _EndlessError) as error:
                raise _failed(error) from None
            return rendered

        return render


def _texts(template: str | Sequence[Mapping[str, Any]]) -> list[str]:
    """Every text there is in a template."""
    if isinstance(template, str):
        return [template]
    found: list[str] = []
    for message in template if isinstance(template, list) else [None]:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TemplateFailed("The template is not a list of messages, each with a role and a content.")
        content = message.get("content")
        parts: list[Any] = content if isinstance(content, list) else [{"text": content}]
        found += [part["text"] for part in parts if _is_text(part)]
    return found


def _each_text(content: Any, change: Callable[[str], str]) -> Any:
    """`content` with each text in it changed: it is one, or a list of parts of which some have one."""
    if isinstance(content, str):
        return change(content)
    if isinstance(content, list):
        return [{**part, "text": change(part["text"])} if _is_text(part) else part for part in content]
    return content


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """The text in pieces, each with the name of the variable that it is."""
    found: list[tuple[str, str | None]] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        found += [(text[at : match.start()], None), (match[0], match[1])]
        at = match.end()
    return [*found, (text[at:], None)]


def _filled(values: Mapping[str, Any]) -> Callable[[str], str]:
    if not values:
        return lambda text: text
    # The longest first: of `a` and `a.b` both could begin where one is written.
    names = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True))
    written = re.compile(rf"\{{\{{\s*({names})\s*\}}\}}")
    texts = {name: str(value) for name, value in values.items()}

    def fill(text: str) -> str:
        filled = written.sub(lambda found: texts[found[1]], text)
        if len(filled) > MAX_RENDERED:
            raise _too_long()
        return filled

    return fill


def _too_long() -> TemplateFailed:
    return TemplateFailed(f"The prompt becomes longer than {MAX_RENDERED} characters or {MAX_PIECES} pieces.")


def _failed(error: BaseException) -> TemplateFailed:
    return TemplateFailed(f"The template cannot be rendered: {type(error).__name__.lstrip('_')}: {str(error)[:300]}")


# ── Jinja ────────────────────────────────────────────────────────────────────────────────────────


class _EndlessError(BaseException):
    """No end of a template was seen. Not an `Exception`: nothing on the way may take it for one of its own."""


@contextmanager
def _counted_steps() -> Iterator[None]:
    """Let no more than `MAX_STEPS` lines of Python be run: loops within loops have no other end."""
    left = MAX_STEPS

    def step(_frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise _EndlessError(f"it takes more than {MAX_STEPS} steps")
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(before)


@functools.cache
def _sandbox() -> SandboxedEnvironment:
    from jinja2.sandbox import SandboxedEnvironment

    class Bounded(SandboxedEnvironment):
        """Jinja's sandbox, in which no single operation takes for ever."""

        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            """The operation's result, unless it would be larger than anybody needs."""
            if _size(operator, left, right) > MAX_OPERAND:
                raise TemplateFailed(
                    f"The template cannot be rendered: '{operator}' would make too much of its operands."
                )
            return super().call_binop(context, operator, left, right)

    return Bounded()


def _size(operator: str, left: Any, right: Any) -> int:
    """What an operation makes at least, in letters, items or bits."""
    if operator == "%":
        # A width in a format makes a text as long as it says.
        return max(map(int, re.findall(r"\d+", left)), default=0) if isinstance(left, str) else 0
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        return bits * abs(right) if operator == "**" else bits + right.bit_length()
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            return len(many) * abs(times)
    return 0


def _globals() -> frozenset[str]:
    return frozenset(_sandbox().globals)


def _read(texts: Sequence[str]) -> tuple[dict[str, Template], frozenset[str]]:
    from jinja2 import meta

    sandbox = _sandbox()
    try:
        undeclared = [meta.find_undeclared_variables(sandbox.parse(text)) for text in texts]
        return {text: sandbox.from_string(text) for text in texts}, frozenset().union(*undeclared)
    except Exception as error:
        raise _failed(error) from None
