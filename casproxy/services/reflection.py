"""Owns server reflection: which services there are and how their messages look, for grpcurl and its like.

Refuses to know what the services do. Both versions of the protocol are served by one class: their messages have
the same fields, and only the names of the packages differ (grpc/grpc-proto, reflection.proto).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from casproxy._proto.grpc.reflection.v1 import reflection_pb2 as pb
from casproxy.errors import InvalidRequest
from casproxy.rpc.api import ServerCall
from casproxy.wire.status import StatusCode

Files: TypeAlias = dict[str, FileDescriptor]


class ReflectionService:
    """Answers about ``services`` and every file they need; about nothing else that is loaded in this process."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        services = list(services)
        self._names = sorted(service.full_name for service in services)
        self._by_name: Files = {}
        for service in services:
            for file in _with_imports(service.file):
                self._by_name[file.name] = file
        self._by_symbol: Files = {symbol: file for file in self._by_name.values() for symbol in _symbols(file)}

    async def info(self, call: ServerCall) -> None:
        """One answer for each request, until the client has no more."""
        while (message := await call.receive_message()) is not None:
            try:
                request = pb.ServerReflectionRequest.FromString(message)
            except DecodeError as error:
                raise InvalidRequest("malformed ServerReflectionRequest") from error
            await call.send_message(self._answer(request).SerializeToString())

    def _answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        answer = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                answer.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in self._names)
            case "file_by_filename":
                self._describe(answer, self._by_name.get(request.file_by_filename))
            case "file_containing_symbol":
                self._describe(answer, self._by_symbol.get(request.file_containing_symbol))
            case "all_extension_numbers_of_type" if request.all_extension_numbers_of_type in self._by_symbol:
                answer.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
            case _:  # proto3 has no extensions, and every other question is about something unknown
                self._describe(answer, None)
        return answer

    @staticmethod
    def _describe(answer: pb.ServerReflectionResponse, file: FileDescriptor | None) -> None:
        if file is None:
            answer.error_response.error_code = StatusCode.NOT_FOUND
            answer.error_response.error_message = "not found"
            return
        for one in _with_imports(file):
            answer.file_descriptor_response.file_descriptor_proto.append(one.serialized_pb)


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """``file`` first, then everything it imports, each once."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop(0)
        if one.name not in seen:
            seen.add(one.name)
            yield one
            waiting += one.dependencies


def _symbols(file: FileDescriptor) -> Iterator[str]:
    """The full names a client may ask for: services, their methods, messages however deep, enums."""
    for service in file.services_by_name.values():
        yield service.full_name
        yield from (method.full_name for method in service.methods)
    yield from (enum.full_name for enum in file.enum_types_by_name.values())
    messages = list(file.message_types_by_name.values())
    while messages:
        message = messages.pop()
        yield message.full_name
        yield from (field.full_name for field in message.fields)
        yield from (enum.full_name for enum in message.enum_types)
        messages += message.nested_types
