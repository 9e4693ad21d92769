"""The JSON mapping, compared with protobuf's own and with hostile input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.rpc.error_details_pb2 import ErrorInfo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion_rest_bridge import json_text
from minion_rest_bridge.errors import JsonTextError, RequestError
from minion_rest_bridge.json_in import read_message
from minion_rest_bridge.json_out import message_to_json
from minion_rest_bridge.json_text import DENSE, dumps
from minion_rest_bridge.responses import failure_to_json
from minion_wire.json_value import MAX_EXACT, number_problem

Read = Callable[[str | bytes], Any]


@pytest.fixture(scope="session")
def everything(echo: ServiceDescriptor) -> Callable[..., Any]:
    """The message class with a field of every kind."""
    return message_factory.GetMessageClass(echo.methods_by_name["Get"].input_type)


@pytest.fixture(scope="session")
def read(everything: Callable[..., Any]) -> Read:
    def run(text: str | bytes) -> Any:
        message = everything()
        read_message(json_text.loads(text), message)
        return message

    return run


def blamed(read: Read, text: str | bytes) -> str:
    with pytest.raises(RequestError) as caught:
        read(text)
    field: str = failure_to_json(caught.value.failure)["details"][1]["fieldViolations"][0]["field"]
    return field


int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=5)
floats = st.floats(width=32, allow_nan=False)
storable = text.filter(lambda value: "\0" not in value)
plain_json = st.recursive(
    st.none()
    | st.booleans()
    | storable
    | st.integers(-MAX_EXACT, MAX_EXACT)
    | st.floats(-1e300, 1e300).filter(lambda number: number_problem(number) is None),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(storable, inner, max_size=3),
    max_leaves=8,
)
scalars = st.fixed_dictionaries(
    {},
    optional={
        "int32_field": int32,
        "int64_field": int64,
        "uint32_field": st.integers(0, 2**32 - 1),
        "uint64_field": st.integers(0, 2**64 - 1),
        "double_field": st.floats(allow_nan=False),
        "float_field": floats,
        "bool_field": st.booleans(),
        "text": text,
        "data": st.binary(max_size=5),
        "enum_field": st.sampled_from([0, 1, 2, 77]),
        "maybe": int32,
        "int32_list": st.lists(int32, max_size=3),
        "text_list": st.lists(text, max_size=3),
        "enum_list": st.lists(st.sampled_from([0, 1, 2, 77]), max_size=3),
        "counts": st.dictionaries(text, int64, max_size=2),
        "by_number": st.dictionaries(int64, text, max_size=2),
        "first": text,
    },
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "time": st.tuples(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999)),
        "span": st.integers(-(10**12), 10**12),
        "json_value": plain_json,
        "object": st.dictionaries(storable, plain_json, max_size=3),
        "json_list": st.lists(plain_json, max_size=3),
        "wide": int64,
        "flag": st.booleans(),
        "word": text,
    },
)


def build(new: Callable[..., Any], plain: dict[str, Any], special: dict[str, Any]) -> Any:
    message = new(**plain)
    for name, value in special.items():
        match name:
            case "time":
                message.time.seconds, message.time.nanos = value[0], value[1] * 1_000
            case "span":
                message.span.FromMicroseconds(value)
            case "wide" | "flag" | "word":
                getattr(message, name).value = value
            case "json_value":
                json_format.ParseDict(value, message.json_value)
            case "object" | "json_list":
                json_format.ParseDict(value, getattr(message, name))
    return message


class TestAgainstProtobuf:
    # The classes come from a fixture of the session and have no state.
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(outer=scalars, inner=scalars, special=extras)
    def test_written_as_protobuf_writes(
        self, everything: Callable[..., Any], outer: Any, inner: Any, special: Any
    ) -> None:
        message = build(everything, outer, special)
        message.child.CopyFrom(build(everything, inner, special))
        message.by_bool[True].CopyFrom(message.child)
        message.children.append(message.child)
        expected = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
        assert message_to_json(message) == expected
        dumps(message_to_json(message))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(outer=scalars, inner=scalars, special=extras, original_names=st.booleans())
    def test_what_protobuf_writes_is_read(
        self,
        everything: Callable[..., Any],
        read: Read,
        outer: Any,
        inner: Any,
        special: Any,
        original_names: bool,
    ) -> None:
        message = build(everything, outer, special)
        message.child.CopyFrom(build(everything, inner, special))
        message.by_bool[False].CopyFrom(message.child)
        written = json_format.MessageToJson(message, preserving_proto_field_name=original_names)
        # Whole numbers that a double cannot hold are refused.
        if not any(len(word) > 15 and word.isdigit() for word in _numbers(written)):
            assert read(written) == message

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(data=st.text(max_size=40) | plain_json.map(json.dumps) | st.binary(max_size=40))
    def test_any_text_is_read_or_refused(self, read: Read, data: str | bytes) -> None:
        try:
            dumps(message_to_json(read(data)))
        except JsonTextError:
            pass
        except RequestError as error:
            dumps(failure_to_json(error.failure))


def _numbers(written: str) -> list[str]:
    kept = []
    json.loads(written, parse_int=lambda literal: kept.append(literal.lstrip("-")))
    return kept


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('{"int32Field": "7"}', "int32_field", 7),
        ('{"int32_field": 7.0}', "int32_field", 7),
        ('{"int32Field": 1e3}', "int32_field", 1000),
        ('{"int32Field": "-1.0e1"}', "int32_field", -10),
        ('{"int64Field": 9223372036854775807}', "int64_field", 2**63 - 1),
        ('{"int64Field": 9007199254740993.0}', "int64_field", 2**53 + 1),
        ('{"int64Field": "-9223372036854775808"}', "int64_field", -(2**63)),
        ('{"uint64Field": 18446744073709551615}', "uint64_field", 2**64 - 1),
        ('{"doubleField": "Infinity"}', "double_field", math.inf),
        ('{"doubleField": "1.5"}', "double_field", 1.5),
        ('{"doubleField": 123456789012345678901234567890}', "double_field", 1.2345678901234568e29),
        ('{"enumField": "GREEN"}', "enum_field", 2),
        ('{"enumField": 2}', "enum_field", 2),
        ('{"data": "-_8"}', "data", b"\xfb\xff"),
        ('{"data": "+/8="}', "data", b"\xfb\xff"),
        ('{"text": null}', "text", ""),
        ('{"text": "\\ud83d\\ude00"}', "text", "\U0001f600"),
        ('{"int32List": null}', "int32_list", []),
        ('{"enumList": ["RED", 2]}', "enum_list", [1, 2]),
        ('{"byBool": {}}', "by_bool", {}),
        ('{"nothing": null}', "nothing", 0),
    ],
)
def test_accepted(read: Read, text: str, field: str, value: object) -> None:
    assert getattr(read(text), field) == value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"int32Field": 2147483648}', "int32_field"),
        ('{"int32Field": "2147483648"}', "int32_field"),
        ('{"int32Field": 1.5}', "int32_field"),
        ('{"int32Field": 1e999999999}', "int32_field"),
        ('{"int32Field": 1e-999999999}', "int32_field"),
        ('{"int32Field": true}', "int32_field"),
        ('{"int32Field": " 1"}', "int32_field"),
        ('{"int32Field": "1_0"}', "int32_field"),
        ('{"int32Field": "٣"}', "int32_field"),
        ('{"int32Field": ""}', "int32_field"),
        ('{"int64Field": 9223372036854775808}', "int64_field"),
        ('{"int64Field": %s}' % ("9" * 100_000), "int64_field"),
        ('{"uint32Field": -1}', "uint32_field"),
        ('{"doubleField": 1e400}', "double_field"),
        ('{"doubleField": %s}' % ("9" * 400), "double_field"),
        ('{"doubleField": "nan"}', "double_field"),
        ('{"floatField": 3.5e38}', "float_field"),
        ('{"boolField": "true"}', "bool_field"),
        ('{"boolField": 1}', "bool_field"),
        ('{"text": 1}', "text"),
        ('{"text": "\\ud800"}', "text"),
        ('{"textList": ["a", "\\udfff"]}', "text_list[1]"),
        ('{"textList": ["a", null]}', "text_list[1]"),
        ('{"textList": "a"}', "text_list"),
        ('{"data": "a"}', "data"),
        ('{"data": "\xe4"}', "data"),
        ('{"enumField": "BLUE"}', "enum_field"),
        ('{"enumField": 1.5}', "enum_field"),
        ('{"child": []}', "child"),
        ('{"child": {"child": {"nope": 1}}}', "child.child.nope"),
        ('{"children": [{}, {"int32List": [1, "x"]}]}', "children[1].int32_list[1]"),
        ('{"counts": {"a": null}}', "counts.a"),
        ('{"counts": {"\\ud800": 1}}', "counts.\\ud800"),
        ('{"byBool": {"yes": {}}}', "by_bool.yes"),
        ('{"byNumber": {"x": "y"}}', "by_number.x"),
        ('{"first": "a", "second": 1}', "second"),
        ('{"int32Field": 1, "int32_field": 1}', "int32_field"),
        ('{"time": "yesterday"}', "time"),
        ('{"time": "2026-02-30T00:00:00Z"}', "time"),
        ('{"time": "2026-01-01T00:00:00"}', "time"),
        ('{"time": 5}', "time"),
        ('{"span": "5"}', "span"),
        ('{"span": "5m"}', "span"),
        ('{"span": "999999999999s"}', "span"),
        ('{"span": "1.0000000001s"}', "span"),
        ('{"wide": "x"}', "wide"),
        ('{"any": {"@type": "nope"}}', "any.@type"),
        ('{"any": {"@type": "x/google.protobuf.Duration", "value": 1}}', "any.value"),
        ('{"object": []}', "object"),
        ('{"object": {"a": [{"b": 9007199254740993}]}}', "object.a[0].b"),
        ('{"jsonList": {}}', "json_list"),
        ('{"jsonValue": -9007199254740993}', "json_value"),
        ('{"jsonValue": 1e400}', "json_value"),
        ("[]", "body"),
        ("1", "body"),
        ("null", "body"),
    ],
)
def test_refused_and_blamed(read: Read, text: str, field: str) -> None:
    assert blamed(read, text) == field


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nope",
        "{}{}",
        '{"text": NaN}',
        '{"doubleField": Infinity}',
        '{"a": 1, "a": 1}',
        '{"object": {"a": {"b": 1, "b": 2}}}',
        '{"text": "\n"}',
        "{'text': 1}",
        '{"int32Field": 01}',
        '{"int32Field": +1}',
        '{"doubleField": 1e99999999999999999999}',
        b'{"text": "\xff"}',
        b'{"text": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        '{"a":' * 50_000,
        "[" * 50_000,
    ],
)
def test_texts_that_are_not_json(read: Read, text: str | bytes) -> None:
    with pytest.raises(JsonTextError):
        read(text)


@pytest.mark.parametrize("form", ["list", "object", "message"])
def test_everything_that_is_read_survives_the_wire(read: Read, everything: Any, form: str) -> None:
    """The deepest nesting that is accepted, in a response that is nested more deeply."""
    for depth in range(10, 120):
        try:
            message = read(_nested(form, depth))
        except RequestError:
            break
    else:
        pytest.fail("no nesting is too deep")
    outer = everything(children=[everything(child=message)])
    assert everything.FromString(outer.SerializeToString()) == outer


def _nested(form: str, depth: int) -> str:
    if form == "list":
        return '{"jsonValue":' + "[" * depth + "]" * depth + "}"
    if form == "object":
        return '{"jsonValue":' + '{"a":' * depth + "1" + "}" * depth + "}"
    return '{"child":' * depth + "{}" + "}" * depth


def test_any_is_read_and_written(read: Read) -> None:
    for value in (
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "d"},
        {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"},
    ):
        written = message_to_json(read(json.dumps({"any": value})))["any"]
        assert value.items() <= written.items()


def test_an_any_of_an_unknown_type_is_still_shown() -> None:
    message = AnyMessage(type_url="type.googleapis.com/no.Such", value=b"\x08\x01")
    assert message_to_json(message) == {"@type": "type.googleapis.com/no.Such", "value": "CAE="}


def test_an_any_holds_members_without_presence() -> None:
    packed = AnyMessage()
    packed.Pack(ErrorInfo(reason="R"))
    assert message_to_json(packed)["metadata"] == {}
    packed.Pack(Duration(seconds=1))
    assert message_to_json(packed)["value"] == "1s"


def test_numbers_in_json_values_stay_what_they_are() -> None:
    struct = Struct()
    struct.update({"one": 1, "half": 0.5, "exact": MAX_EXACT, "large": 1e20, "huge": 1e300})
    written = dumps(message_to_json(struct))
    assert json.loads(written) == {
        "one": 1, "half": 0.5, "exact": MAX_EXACT, "large": 1e20, "huge": 1e300
    }  # fmt: skip
    assert b'"one":1' in written
    assert b"1.0" not in written
    assert message_to_json(Value(number_value=math.nan)) == "NaN"


@pytest.mark.parametrize("text", ["-0", "-0.0", "-0e5"])
def test_a_negative_zero_stays_one(read: Read, text: str) -> None:
    message = read(f'{{"doubleField": {text}, "jsonValue": {text}, "int32Field": {text}}}')
    assert math.copysign(1, message.double_field) == -1
    assert math.copysign(1, message.json_value.number_value) == -1
    assert dumps(message_to_json(message)["jsonValue"]) == b"-0.0"
    assert message.int32_field == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"a":',
        "[1,]",
        '{"a" 1}',
        "[1 2]",
        '{"a":1,"a":2}',
        "[NaN]",
        '["\x00"]',
        '"\\x"',
        "[01]",
        "x",
    ],
)
def test_both_scanners_refuse_with_the_same_words(text: str) -> None:
    dense = "[" + "0," * DENSE + "\n"
    with pytest.raises(JsonTextError) as sparse_error:
        json_text.loads("[\n" + text + "]")
    with pytest.raises(JsonTextError) as dense_error:
        json_text.loads(dense + text + "]")
    assert str(sparse_error.value) == str(dense_error.value)


def test_both_scanners_read_the_same() -> None:
    values = [1, -5, "a\u00e4", None, True, {"x": [], "y": {"z": 0.5}}]
    text = json.dumps(values)
    assert json_text.loads(text) == json_text.loads(f"[{'0,' * DENSE}{text}]")[-1]
    with pytest.raises(JsonTextError, match="nested too deeply"):
        json_text.loads("[" + "0," * DENSE + "[" * 99_999)
