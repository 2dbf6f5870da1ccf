"""MLflow's search grammar: what a filter or an order_by says, as data. Pure; errors in MLflow's words.

    filter   := clause ( AND clause )*
    clause   := [entity '.'] key  comparator  value
    key      := bare | `back ticked` | "double quoted"
    value    := number | 'single quoted' | "double quoted" | ( 'a', 'b' )
    order_by := [entity '.'] key [ASC|DESC]

Source: https://github.com/mlflow/mlflow/blob/master/mlflow/utils/search_utils.py

Ours, and no filter of MLflow's: one that begins with WHERE may have OR and parentheses, and RLIKE where LIKE is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from promptlab.errors import InvalidParameter
from promptlab.filters_tokens import END, PART, Token, Tokens

Value = str | int | float | tuple[str | int, ...] | None

NUMERIC = ("!=", "<", "<=", "=", ">", ">=")
TEXT = ("!=", "=", "ILIKE", "LIKE")
LISTS = ("IN", "NOT IN")
PRESENCE = ("IS NOT NULL", "IS NULL")

# Far beyond what anybody writes, and below what SQLite can nest or bind.
MAX_CLAUSES, MAX_ORDER_BY, MAX_DEPTH = 200, 20, 20
MAX_LIST = MAX_PATTERN = 10_000


class Entity(StrEnum):
    """What a clause is about."""

    METRIC = "metric"
    PARAM = "parameter"
    TAG = "tag"
    ATTRIBUTE = "attribute"
    DATASET = "dataset"
    METADATA = "request_metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition. `value` is a number for numeric keys, a tuple for IN, None for IS (NOT) NULL.

    Of the entity `EITHER` it is alternatives: `options`, of one of which every clause must hold.
    """

    entity: Entity
    key: str
    comparator: str
    value: Value
    options: tuple[tuple[Clause, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One key to sort by."""

    entity: Entity
    key: str
    ascending: bool = True


@dataclass(frozen=True)
class Grammar:
    """What one kind of search knows: `entities` maps every spelling, `names` are those an error lists."""

    entities: Mapping[str, Entity]
    names: object
    entity_word: str
    text_keys: frozenset[str]
    number_keys: frozenset[str]
    list_keys: frozenset[str]
    presence: frozenset[Entity]
    ordered: frozenset[Entity]
    aliases: Mapping[str, str] = field(default_factory=dict)
    # The attributes to sort by, where they are others than those to filter by; `aliases` then are theirs.
    order_keys: frozenset[str] | None = None
    quoted_numbers: bool = False
    # What may be asked of each entity, where it is not what may be asked of any text; whose keys all take a list.
    comparators: Mapping[Entity, tuple[str, ...]] = field(default_factory=dict)
    listed: frozenset[Entity] = frozenset()

    @property
    def filtered(self) -> frozenset[str]:
        """What an attribute may be called in a filter."""
        known = self.text_keys | self.number_keys
        return known | self.aliases.keys() if self.order_keys is None else known

    @property
    def sorted(self) -> frozenset[str]:
        """What an attribute may be called in an order_by."""
        return self.filtered if self.order_keys is None else self.order_keys | self.aliases.keys()


_DATASET_KEYS = frozenset({"name", "digest", "context"})

_PHRASES = {
    ("IS", "NULL"): "IS NULL",
    ("NOT", "IN"): "NOT IN",
    ("NOT", "LIKE"): "NOT LIKE",
    ("NOT", "ILIKE"): "NOT ILIKE",
}


def parse_filter(text: str, grammar: Grammar) -> list[Clause]:
    """The clauses of `text`, all of which must hold; none for an empty one."""
    tokens = Tokens(text)
    clauses: list[Clause] = []
    if tokens.peek() is END:
        return clauses
    if tokens.peek().word == "WHERE":
        tokens.take()
        return _wide(tokens, grammar)
    while True:
        clauses.append(_clause(tokens, grammar))
        if len(clauses) > MAX_CLAUSES:
            raise InvalidParameter(f"The filter has more than {MAX_CLAUSES} clauses")
        joint = tokens.take()
        if joint is END:
            return clauses
        if joint.text == ";":
            if tokens.peek() is END:
                return clauses
            raise InvalidParameter(
                f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list."
            )
        if joint.word != "AND":
            raise _invalid_clauses(joint)


def _wide(tokens: Tokens, grammar: Grammar) -> list[Clause]:
    """What follows WHERE: clauses with AND, OR and parentheses, and RLIKE among their comparators."""
    clauses = _any_of(tokens, grammar, 0)
    if tokens.peek() is not END:
        raise _invalid_clauses(tokens.peek())
    if sum(1 for _ in flat(clauses)) > MAX_CLAUSES:
        raise InvalidParameter(f"The filter has more than {MAX_CLAUSES} clauses")
    return clauses


def _any_of(tokens: Tokens, grammar: Grammar, depth: int) -> list[Clause]:
    if depth > MAX_DEPTH:
        raise InvalidParameter(f"The filter has more than {MAX_DEPTH} parentheses inside each other")
    options = [_all_of(tokens, grammar, depth)]
    while tokens.peek().word == "OR":
        tokens.take()
        options.append(_all_of(tokens, grammar, depth))
    if len(options) == 1:
        return options[0]
    return [Clause(Entity.EITHER, "", "OR", None, tuple(tuple(option) for option in options))]


def _all_of(tokens: Tokens, grammar: Grammar, depth: int) -> list[Clause]:
    clauses: list[Clause] = []
    while True:
        if tokens.peek().text == "(":
            tokens.take()
            clauses += _any_of(tokens, grammar, depth + 1)
            if (closing := tokens.take()).text != ")":
                raise _invalid_clauses(closing)
        else:
            clauses.append(_clause(tokens, grammar, wide=True))
        if tokens.peek().word != "AND":
            return clauses
        tokens.take()


def flat(clauses: Iterable[Clause]) -> Iterator[Clause]:
    """Every clause there is, however deep in alternatives."""
    for clause in clauses:
        if clause.entity is Entity.EITHER:
            for option in clause.options:
                yield from flat(option)
        else:
            yield clause


def each(clauses: Iterable[Clause], change: Callable[[Clause], Clause]) -> list[Clause]:
    """The clauses with each of them changed, those in alternatives too."""
    return [
        replace(clause, options=tuple(tuple(each(option, change)) for option in clause.options))
        if clause.entity is Entity.EITHER
        else change(clause)
        for clause in clauses
    ]


def parse_order_by(items: Sequence[str], grammar: Grammar) -> list[Order]:
    """The keys to sort by, in order of weight."""
    if len(items) > MAX_ORDER_BY:
        raise InvalidParameter(f"`order_by` has more than {MAX_ORDER_BY} fields")
    orders = [_order(item, grammar) for item in items]
    if len({(order.entity, order.key) for order in orders}) < len(orders):
        raise InvalidParameter(f"`order_by` contains duplicate fields: {list(items)}")
    return orders


def _order(text: str, grammar: Grammar) -> Order:
    tokens = Tokens(text)
    first, direction, rest = tokens.take(), tokens.take(), tokens.take()
    if first.kind != "name" or rest is not END:
        raise InvalidParameter(f"Invalid order_by clause '{text}'. Could not be parsed.")
    if direction is not END and direction.word not in ("ASC", "DESC"):
        raise InvalidParameter(f"Invalid ordering key in order_by clause '{text}'.")
    entity, key = _identifier(first.text, grammar, grammar.sorted)
    if entity not in grammar.ordered:
        raise InvalidParameter(f"Invalid order_by entity: {entity.value}")
    return Order(entity, key, direction.word != "DESC")


def _clause(tokens: Tokens, grammar: Grammar, *, wide: bool = False) -> Clause:
    left = tokens.take()
    if left.kind != "name":
        raise _invalid_clauses(left)
    if tokens.peek().kind != "compare" and tokens.peek().word not in ("LIKE", "ILIKE", "RLIKE", "IN", "IS", "NOT"):
        raise _invalid_clauses(left)
    comparator = _comparator(tokens)
    entity, key = _identifier(left.text, grammar, grammar.filtered)
    if comparator in PRESENCE:
        if entity not in grammar.presence:
            allowed = "tags and params" if Entity.PARAM in grammar.presence else "tags"
            what = f"'{entity.value}' '{key}'"
            raise InvalidParameter(f"IS NULL / IS NOT NULL is only supported for {allowed}, not for {what}")
        return Clause(entity, key, comparator, None)
    value = _value(tokens, entity, key, grammar)
    _check_comparator(comparator, entity, key, value, grammar, wide=wide)
    return Clause(entity, key, comparator, value)


def _comparator(tokens: Tokens) -> str:
    token = tokens.take()
    if token.kind == "compare":
        return token.text
    if token.word == "IS" and tokens.peek().word == "NOT" and tokens.peek(1).word == "NULL":
        tokens.take()
        tokens.take()
        return "IS NOT NULL"
    phrase = _PHRASES.get((token.word, tokens.peek().word))
    if phrase is not None:
        tokens.take()
        return phrase
    if token.word in ("IS", "NOT"):
        raise InvalidParameter(f"Invalid comparison clause. Expected comparison found '{token.text}'")
    return token.word


def _identifier(text: str, grammar: Grammar, known: frozenset[str]) -> tuple[Entity, str]:
    parts = re.match(rf"({PART})(?:\.(.*))?\Z", text, re.DOTALL)
    head, key = (text, None) if parts is None else parts.groups()
    if key is None:
        entity, key = Entity.ATTRIBUTE, _bare(head)
    else:
        name = _bare(head)
        if name not in grammar.entities:
            raise InvalidParameter(f"Invalid entity type '{name}'. {grammar.entity_word} {grammar.names}")
        entity, key = grammar.entities[name], _bare(key)
    if entity is Entity.ATTRIBUTE:
        if key not in known:
            raise InvalidParameter(f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(known)}'")
        key = grammar.aliases.get(key, key)
    elif entity is Entity.DATASET and key not in _DATASET_KEYS:
        raise InvalidParameter(f"Invalid dataset key '{key}' specified. Valid keys are '{sorted(_DATASET_KEYS)}'")
    return entity, key


def _bare(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in '`"' else text


def _value(tokens: Tokens, entity: Entity, key: str, grammar: Grammar) -> Value:
    token = tokens.take()
    if token is END:
        raise InvalidParameter("Invalid comparison clause. Expected 3 tokens found 2")
    if token.text == "(":
        return _list(tokens, entity, key, grammar)
    if entity is Entity.METRIC or (entity is Entity.ATTRIBUTE and key in grammar.number_keys):
        return _number(token, entity, key, quoted=grammar.quoted_numbers)
    if token.kind == "number" and entity in (Entity.FEEDBACK, Entity.EXPECTATION):
        return float(token.text)
    if token.kind == "string":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "name":
        if token.text[0] == token.text[-1] == '"' and len(token.text) >= 2:
            return token.text[1:-1]
        raise InvalidParameter(
            "Parameter value is either not quoted or unidentified quote types used for string value "
            f"{token.text}. Use either single or double quotes."
        )
    raise _not_quoted(entity, token.text)


def _number(token: Token, entity: Entity, key: str, *, quoted: bool) -> int | float:
    if quoted and re.fullmatch(r"'-?[0-9]+'", token.text):
        token = Token("number", token.text[1:-1])
    if token.kind != "number":
        which = "metric" if entity is Entity.METRIC else f"numeric attribute: {key}"
        raise InvalidParameter(f"Expected numeric value type for {which}. Found {token.text}")
    if entity is Entity.METRIC or not re.fullmatch(r"-?[0-9]{1,18}", token.text):
        # Whole numbers beyond 64 bits too: as a float they still compare rightly, and any database takes them.
        return float(token.text)
    return int(token.text)


def _not_quoted(entity: Entity, found: str) -> InvalidParameter:
    match entity:
        case Entity.ATTRIBUTE:
            return InvalidParameter(f"Expected a quoted string value for attributes. Got value {found}")
        case Entity.DATASET:
            return InvalidParameter(f"Expected a quoted string value for dataset attributes. Got value {found}")
        case _:
            return InvalidParameter(
                f"Expected a quoted string value for {entity.value} (e.g. 'my-value'). Got value {found}"
            )


def _list(tokens: Tokens, entity: Entity, key: str, grammar: Grammar) -> tuple[str, ...]:
    if entity in (Entity.TAG, Entity.PARAM) and entity not in grammar.listed:
        raise _not_quoted(entity, "(")
    if entity is Entity.METRIC or key in grammar.number_keys:
        raise InvalidParameter(f"Expected numeric value type for {entity.value}: {key}. Found a list")
    if entity is Entity.ATTRIBUTE and key not in grammar.list_keys:
        raise InvalidParameter(
            f"Only {sorted(grammar.list_keys)} attributes support comparison with a list of quoted string values."
        )
    values: list[str] = []
    while True:
        values.append(_quoted(tokens.take()))
        end = tokens.take().text
        if len(values) > MAX_LIST:
            raise InvalidParameter(f"A list in the filter has more than {MAX_LIST} values")
        if end == "," and tokens.peek().text == ")":
            end = tokens.take().text
        if end == ")":
            return tuple(values)
        if end != ",":
            raise _ill_formed_list()


def _quoted(token: Token) -> str:
    if token.kind == "string":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "name" and token.text[0] == token.text[-1] == '"':
        return token.text[1:-1]
    raise _ill_formed_list()


def _ill_formed_list() -> InvalidParameter:
    return InvalidParameter(
        "While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list."
    )


def _check_comparator(comparator: str, entity: Entity, key: str, value: Value, grammar: Grammar, *, wide: bool) -> None:
    if entity is Entity.METRIC or (entity is Entity.ATTRIBUTE and key in grammar.number_keys):
        valid: tuple[str, ...] = NUMERIC
    elif entity in grammar.comparators:
        valid = grammar.comparators[entity]
    elif entity is Entity.ATTRIBUTE and key == "experiment_id":
        valid = ("!=", "=", *LISTS)
    elif entity in (Entity.DATASET, *grammar.listed) or (entity is Entity.ATTRIBUTE and key in grammar.list_keys):
        valid = (*TEXT, *LISTS)
    else:
        valid = TEXT
    if wide and set(TEXT) <= set(valid):
        valid = (*valid, "RLIKE")
    if comparator not in valid:
        raise InvalidParameter(f"Invalid comparator '{comparator}' not one of '{sorted(valid)}'")
    if comparator in ("LIKE", "ILIKE", "RLIKE") and isinstance(value, str) and len(value) > MAX_PATTERN:
        raise InvalidParameter(f"The pattern for '{key}' is longer than {MAX_PATTERN} characters")
    if isinstance(value, tuple) != (comparator in LISTS):
        raise InvalidParameter(
            f"Invalid comparison clause. Comparator '{comparator}' does not go with the value given for '{key}'"
        )


def _invalid_clauses(token: Token) -> InvalidParameter:
    return InvalidParameter(f"Invalid clause(s) in filter string: '{token.text or 'the end'}'")
