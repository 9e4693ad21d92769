"""The services that the bridge serves: those of the generated modules, by their HTTP rules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]  # has no py.typed
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from minion_rest_bridge import templates
from minion_rest_bridge.fields import Path, resolve, takes_text
from minion_rest_bridge.policy import Policy, policy_of
from minion_rest_bridge.templates import Template

PACKAGE: Final = "minion.v1"
BODY_ALL: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way to call a method over HTTP (google/api/http.proto).

    Attributes:
        method: The gRPC method.
        policy: How it may be called.
        http_method: As GET; `*` stands for all.
        template: Of the path.
        body: None, the name of the field that the body fills, or `*`.
        response_body: The only field of the response that is returned; None: all.
    """

    method: MethodDescriptor
    policy: Policy
    http_method: str
    template: Template
    body: str | None
    response_body: FieldDescriptor | None


def load_services(package: str = PACKAGE) -> list[ServiceDescriptor]:
    """Return the services of all generated modules of a package, by their names.

    Raises:
        ImportError: There is no such package.
    """
    services: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{package}.{module.name}").DESCRIPTOR
            services |= {service.full_name: service for service in file.services_by_name.values()}
    return [services[name] for name in sorted(services)]


def read_rules(services: Sequence[ServiceDescriptor]) -> Iterator[Rule]:
    """Return the rules of the services' methods, in the order of the files.

    Methods without a rule have none. A client's stream has no form in HTTP: its rule is an error.

    Raises:
        ValueError: A rule is malformed, or names a field that does not exist.
    """
    for method in (method for service in services for method in service.methods):
        options = method.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            continue
        if method.client_streaming:
            raise ValueError(f"{method.full_name}: a stream of requests has no HTTP rule")
        rule = options.Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            yield _read_rule(method, each)


def _read_rule(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Rule:
    match rule.WhichOneof("pattern"):
        case None:
            raise ValueError(f"{method.full_name}: its HTTP rule has no path")
        case "custom":
            http_method, text = rule.custom.kind.upper(), rule.custom.path
        case kind:
            http_method, text = kind.upper(), getattr(rule, kind)
    template = templates.parse(text)
    _check_variables(method, template)
    for name, message in (
        (rule.body, method.input_type),
        (rule.response_body, method.output_type),
    ):
        if name not in ("", BODY_ALL) and name not in message.fields_by_name:
            raise ValueError(f"{method.full_name}: {message.name} has no field {name}")
    return Rule(
        method=method,
        policy=policy_of(method),
        http_method=http_method,
        template=template,
        body=rule.body or None,
        response_body=method.output_type.fields_by_name.get(rule.response_body),
    )


def _check_variables(method: MethodDescriptor, template: Template) -> None:
    bound: set[Path] = set()
    for variable in template.variables:
        name = ".".join(variable)
        chain = resolve(method.input_type, variable) or []
        if not chain or any(field.is_repeated for field in chain) or not takes_text(chain[-1]):
            raise ValueError(f"{method.full_name}: {name} is not a single field that text can fill")
        path = tuple(field.name for field in chain)
        if path in bound:
            raise ValueError(f"{method.full_name}: {name} is bound twice")
        bound.add(path)
