"""The services that the bridge serves: those of the generated modules, with their HTTP rules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]  # has no py.typed
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

from minion_rest_bridge import templates
from minion_rest_bridge.json_in import field_names
from minion_rest_bridge.policy import Policy, policy_of
from minion_rest_bridge.templates import Template

PACKAGE = "minion.v1"
BODY_ALL = "*"
BOOL_VALUE = "google.protobuf.BoolValue"
_WRAPPED = {
    f"google.protobuf.{name}Value"
    for name in ("Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
}
_TEXTUAL = _WRAPPED | {
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.Timestamp",
}
"""Message types whose JSON is a string, or can be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call a method over HTTP.

    Attributes:
        method: The gRPC method.
        policy: How it may be called.
        http_method: As GET; `*` stands for all.
        template: Of the path.
        body: None, the name of the field that the body fills, or `*`.
        response_body: The only field of the response that is answered; None: all.
    """

    method: MethodDescriptor
    policy: Policy
    http_method: str
    template: Template
    body: str | None
    response_body: FieldDescriptor | None


def load_services(package: str = PACKAGE) -> list[ServiceDescriptor]:
    """Answer the services of all generated modules of a package, by their names.

    Raises:
        ImportError: There is no such package.
    """
    services: dict[str, ServiceDescriptor] = {}
    path = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(path):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{package}.{module.name}").DESCRIPTOR
            services |= {service.full_name: service for service in file.services_by_name.values()}
    return [services[name] for name in sorted(services)]


def bindings(services: Sequence[ServiceDescriptor]) -> Iterator[Binding]:
    """Answer the HTTP bindings of the services' methods, in the order of the files.

    Methods without a rule have none. A client's stream has no form in HTTP: its rule is an error.

    Raises:
        ValueError: A rule is malformed, or names a field that does not exist.
    """
    for service in services:
        for method in service.methods:
            options = method.GetOptions()
            if not options.HasExtension(annotations_pb2.http):
                continue
            if method.client_streaming:
                raise ValueError(f"{method.full_name}: a stream of requests has no HTTP rule")
            rule = options.Extensions[annotations_pb2.http]
            for each in (rule, *rule.additional_bindings):
                yield _binding(method, each)


def resolve(message: Any, path: Sequence[str]) -> list[FieldDescriptor] | None:
    """Answer the fields that a path of names, in either spelling, leads through.

    Returns:
        None if there is no such path.
    """
    fields: list[FieldDescriptor] = []
    current: Descriptor | None = message
    for name in path:
        field = None if current is None else field_names(current).get(name)
        if field is None or (fields and fields[-1].is_repeated):
            return None
        fields.append(field)
        # Those of google.protobuf have JSON forms of their own, which hide their fields.
        is_opaque = field.message_type is not None and is_well_known(field.message_type)
        current = None if is_opaque else field.message_type
    return fields or None


def takes_text(field: FieldDescriptor) -> bool:
    """Return whether a parameter's text can be a value of the field."""
    message = field.message_type
    return message is None or message.full_name in _TEXTUAL or message.full_name == BOOL_VALUE


def is_well_known(message: Any) -> bool:
    """Tell whether a message type is one of protobuf's own."""
    return bool(message.full_name.startswith("google.protobuf."))


def _binding(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    kind = rule.WhichOneof("pattern")
    match kind:
        case None:
            raise ValueError(f"{method.full_name}: its HTTP rule has no path")
        case "custom":
            http_method, text = rule.custom.kind.upper(), rule.custom.path
        case _:
            http_method, text = kind.upper(), getattr(rule, kind)
    template = templates.parse(text)
    bound: set[Sequence[str]] = set()
    for variable in template.variables:
        name = ".".join(variable.path)
        fields = resolve(method.input_type, variable.path)
        if (
            fields is None
            or any(field.is_repeated for field in fields)
            or not takes_text(fields[-1])
        ):
            raise ValueError(f"{method.full_name}: {name} is not a single field that text can fill")
        names = tuple(field.name for field in fields)
        if names in bound:
            raise ValueError(f"{method.full_name}: {name} is bound twice")
        bound.add(names)
    for name, message in (
        (rule.body, method.input_type),
        (rule.response_body, method.output_type),
    ):
        if name not in ("", BODY_ALL) and name not in message.fields_by_name:
            raise ValueError(f"{method.full_name}: {message.name} has no field {name}")
    return Binding(
        method=method,
        policy=policy_of(method),
        http_method=http_method,
        template=template,
        body=rule.body or None,
        response_body=method.output_type.fields_by_name.get(rule.response_body),
    )
