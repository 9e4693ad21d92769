"""How a method may be called, as its options in the contract state it."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from minion.v1 import options_pb2

_DURATION = "google.protobuf.Duration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a method may be called.

    Attributes:
        method: Its full name, as in `minion.v1.MinionService/GetJob`.
        is_open: Whether callers need no key.
        is_safe: Whether a call has no side effects.
        is_idempotent: Whether a second call changes nothing more.
        wait_field: Name of the request's Duration that says how long a call may wait; None: the
            method does not wait.
    """

    method: str
    is_open: bool
    is_safe: bool
    is_idempotent: bool
    wait_field: str | None

    @property
    def waits(self) -> bool:
        """Whether a call may wait for something to happen."""
        return self.wait_field is not None

    def timeout(self, request: Message, default: float | None) -> float | None:
        """Return the seconds that a call may take when the HTTP request names no deadline.

        Args:
            request: Of the call. What it waits comes on top.
            default: Seconds that a call may take which does not wait; None: any time.
        """
        if default is None or self.wait_field is None:
            return default
        wait = getattr(request, self.wait_field)
        return default + max(0, int(wait.seconds))


def policy_of(method: MethodDescriptor) -> Policy:
    """Return the policy of a method.

    Raises:
        ValueError: The contract names a field to wait by that is not a Duration of the request.
    """
    level = method.GetOptions().idempotency_level
    options = method.GetOptions().Extensions[options_pb2.policy]
    if options.wait_field:
        field: FieldDescriptor | None = method.input_type.fields_by_name.get(options.wait_field)
        if field is None or field.message_type is None or field.message_type.full_name != _DURATION:
            raise ValueError(
                f"{method.full_name}: {options.wait_field} is not a Duration of its request"
            )
    return Policy(
        method=f"{method.containing_service.full_name}/{method.name}",
        is_open=options.open,
        is_safe=level == MethodOptions.NO_SIDE_EFFECTS,
        is_idempotent=level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        wait_field=options.wait_field or None,
    )
