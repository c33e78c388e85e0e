"""A YAML file whose values know their line, so that an error can name it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1024 * 1024


class YamlError(Exception):
    """The file cannot be read as one YAML mapping. The message names file and line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that appears twice, which YAML forbids and PyYAML lets pass: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Within what every reader of ours can hold: Python does not even print one of thousands of digits."""
        number = self.construct_yaml_int(node)
        if abs(number) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "a whole number of more than 64 bits", node.start_mark)
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
        return parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise YamlError(f"{path}: cannot be read: {error.strerror or error}") from None


def parse_yaml(content: bytes, name: str) -> YamlDocument:
    """The mapping in a file's content; `name` is what messages call the file. As `read_yaml`."""
    if len(content) > MAX_BYTES:
        raise YamlError(f"{name}: has {len(content)} bytes; at most {MAX_BYTES} are read")
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
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        context = f" ({error.context})" if error.context else ""
        raise YamlError(f"{where}: not YAML: {error.problem}{context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(f"{name}: not YAML: {type(error).__name__}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise YamlError(f"{name}:1: expected a mapping of names to values, such as `kafka: {{...}}`")
    return YamlDocument(name, data, root)


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """A child and the line of its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part], node.value[part].start_mark.line
    return None
