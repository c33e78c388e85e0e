"""Reads a YAML mapping with the line of every value, for error messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.composer import Composer

from schemas.explain import excerpt

MAX_BYTES: Final = 1024 * 1024
MAX_VALUES: Final = 100_000
"""Keys and values; the target of an alias counts at each use (billion-laughs guard)."""
MAX_DEPTH: Final = 50


class YamlError(Exception):
    """The file cannot be read as one YAML mapping. The message names file and line."""


class _Refusal(yaml.MarkedYAMLError):
    """A document that is refused, with a message of our own."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(None, None, problem, mark)


class _Loader(Composer, yaml.CSafeLoader):
    """libyaml's parser, six times as fast as PyYAML's own, below PyYAML's composer, in which what comes is bounded.

    Refuses a key that appears twice, which YAML forbids and PyYAML lets pass: the first value would be lost.
    """

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)
        self._values = 0
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self._values
        mark = getattr(event, "start_mark", None)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refusal(f"nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _Refusal("an alias within what it stands for", mark)
            self._values += self._sizes[node]
        else:
            self._values += 1
            if node is not None and getattr(event, "anchor", None) is not None:
                self._sizes[node] = self._values - before
        if self._values > MAX_VALUES:
            raise _Refusal(f"more than {MAX_VALUES} values, counting keys", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, AttributeError, ValueError):  # PyYAML's, of `2026-13-01` and of `!!bool x`
            raise _Refusal(f"cannot be read as {node.tag.rpartition(':')[2]}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise _Refusal(f"the key {excerpt(key.value)} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Refuses integers that are too large: Python does not even print one of thousands of digits."""
        # One of 64 bits has 64 digits at most, and a sign and a prefix: longer ones would take seconds to compute.
        if len(node.value) > 100 or abs(number := self.construct_yaml_int(node)) >= 2**63:
            raise _Refusal("a whole number of more than 64 bits", node.start_mark)
        return int(number)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole_number)


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A mapping read from a file, and where its parts stand."""

    name: str
    data: dict[str, Any]
    root: yaml.Node | None

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the value at the path, counted from 1; that of the nearest thing around it that exists."""
        node, line = self.root, 0
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            node, line = found
        return line + 1

    def text_line(self, path: Sequence[str | int]) -> int:
        """As `line`, for text: the line of its first character, which in a block (`|`, `>`) is the one below."""
        node = self.root
        for part in path:
            found = _child(node, part)
            node = found[0] if found else None
        if not isinstance(node, yaml.ScalarNode):
            return self.line(path)
        return node.start_mark.line + (2 if node.style in ("|", ">") else 1)

    def at(self, path: Sequence[str | int]) -> str:
        """`file:line`, to begin a message with."""
        return f"{self.name}:{self.line(path)}"


def read_yaml(path: Path) -> YamlDocument:
    """The mapping in a file. Raises YamlError; never repeats the file's values, which may be secret."""
    try:
        with path.open("rb") as file:
            return parse_yaml(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise YamlError(f"{path}: cannot be read: {error.strerror or error}") from None


def parse_yaml(content: bytes, name: str) -> YamlDocument:
    """The mapping in a file's content; `name` is what messages call the file. As `read_yaml`."""
    if len(content) > MAX_BYTES:
        raise YamlError(f"{name}: has more than {MAX_BYTES} bytes, which is the most that is read")
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        try:
            root = loader.get_single_node()
            data = loader.construct_document(root) if root is not None else {}
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError(f"{name}: not UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        raise YamlError(_located(error, name, content)) from None
    except Exception as error:  # noqa: BLE001 - PyYAML raises any kind for a tag on what it does not fit
        raise YamlError(f"{name}: not YAML: {type(error).__name__}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise YamlError(f"{name}:1: expected a mapping of names to values, such as `kafka: {{...}}`")
    return YamlDocument(name, data, root)


def _located(error: yaml.MarkedYAMLError, name: str, content: bytes) -> str:
    mark = error.problem_mark or error.context_mark
    last = content.rstrip().count(b"\n")  # what is never closed is missed behind it
    where = f"{name}:{min(mark.line, last) + 1}" if mark else name
    if isinstance(error, _Refusal):
        return f"{where}: not YAML: {error.problem}"
    # What PyYAML quotes is the file's: a password that begins with "!" or "*" would pass for a tag or an alias.
    problem, context = (str(text or "").partition("'")[0].rstrip(" ;") for text in (error.problem, error.context))
    hint = "; a value that begins so is written in quotes" if problem.endswith(("tag", "alias")) else ""
    return f"{where}: not YAML: {problem}{hint}{f' ({context})' if context else ''}"


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """A child and the line of its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part], node.value[part].start_mark.line
    return None
