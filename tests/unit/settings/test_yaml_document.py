"""What is read of a YAML file is bounded, and no error repeats a value."""

import time

import pytest

from worker.yaml_document import MAX_BYTES, MAX_VALUES, YamlError, parse_yaml

LIMITS = [
    ("x" * MAX_BYTES + ": 1", "f.yaml: has more than 1048576 bytes"),
    ("a: 1\nb: [" + "1," * (MAX_VALUES + 1) + "1]", f"f.yaml:2: not YAML: more than {MAX_VALUES} values"),
    ("a: 1\nb: " + "[" * 300_000, "f.yaml:2: not YAML: exceeded maximum nesting depth"),
    ("a: 1\nb: " + "{a: " * 60, "f.yaml:2: not YAML: nested more than 50 deep"),
    ("a: &a [1, *a]", "f.yaml:1: not YAML: an alias within what it stands for"),
    ("a: " + "9:" * 400_000 + "9", "f.yaml:1: not YAML: a whole number of more than 64 bits"),
    ("? " + "k" * 1000 + "\n: 1\n? " + "k" * 1000 + "\n: 2\n", "f.yaml:3: not YAML: the key 'kkk"),
]


@pytest.mark.parametrize(("text", "says"), LIMITS, ids=[says[:50] for _, says in LIMITS])
def test_a_file_that_would_take_long_is_refused_at_once_with_its_line(text: str, says: str) -> None:
    before = time.process_time()
    with pytest.raises(YamlError) as refused:
        parse_yaml(text.encode(), "f.yaml")
    assert str(refused.value).startswith(says)
    assert len(str(refused.value)) < 200
    assert time.process_time() - before < 4  # PyYAML's own parser takes 10 s for a MiB


def test_a_few_aliases_do_not_stand_for_millions_of_values() -> None:
    levels = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 9))
    with pytest.raises(YamlError, match=r"f\.yaml:6: not YAML: more than 100000 values"):
        parse_yaml(f"l0: &l0 [x]\n{levels}".encode(), "f.yaml")


def test_aliases_and_merges_within_the_limit_are_followed() -> None:
    found = parse_yaml(b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n", "f.yaml")
    assert found.data == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2}


@pytest.mark.parametrize(
    "secret", ["!hunter2", "*hunter2", "'hunter2", '"\\hunter2"', "%hunter2", "@hunter2", "[hunter2"]
)
def test_a_password_without_quotes_is_not_repeated_by_the_error(secret: str) -> None:
    with pytest.raises(YamlError, match=r"^f\.yaml:\d: not YAML") as refused:
        parse_yaml(f"kafka:\n  sasl_password: {secret}\n".encode(), "f.yaml")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("secret", ["!hunter2", "*hunter2"])
def test_a_value_that_passes_for_a_tag_or_an_alias_is_told_to_need_quotes(secret: str) -> None:
    with pytest.raises(YamlError, match=r"^f\.yaml:2: not YAML: .*a value that begins so is written in quotes"):
        parse_yaml(f"kafka:\n  sasl_password: {secret}\n".encode(), "f.yaml")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2026-13-01", "f.yaml:2: not YAML: cannot be read as timestamp"),
        ("0x_", "f.yaml:2: not YAML: cannot be read as int"),
        ("!!bool x", "f.yaml:2: not YAML: cannot be read as bool"),
        ("!!int ''", "f.yaml:2: not YAML: cannot be read as int"),
        ("!!timestamp x", "f.yaml:2: not YAML: cannot be read as timestamp"),
        ("!!set [1]", "f.yaml: not YAML: TypeError"),
        ("!!set a", "f.yaml: not YAML: ValueError"),
        ("=", "f.yaml:2: not YAML: could not determine a constructor for the tag"),
        ("a\0", "f.yaml: not YAML: ReaderError"),
    ],
)
def test_a_value_that_is_not_of_the_type_it_looks_like_is_refused(value: str, says: str) -> None:
    with pytest.raises(YamlError) as refused:
        parse_yaml(f"a: 1\nb: {value}\n".encode(), "f.yaml")
    assert str(refused.value).startswith(says)
