"""Traces of requests and tasks by OpenTelemetry, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

Spans are made here and not by OpenTelemetry's instrumentations of Django and Celery, which record
paths, queries and arguments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase

from feedback_app.monitoring.requests import method_of, view_of
from feedback_app.web import log_context

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span, Tracer

_tracer: "Tracer | None" = None


@dataclass(frozen=True)
class TaskSpan:
    """The span of a task, and what restores the thread's context at its end."""

    span: "Span"
    token: "Token[Any]"


def start(*, endpoint: str) -> None:
    """Record spans in this process. Raises ImproperlyConfigured without the extra.

    The exporter and the sampler read the other OTEL_… variables.
    """
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra is not installed: "
            "pip install 'prospect[otel]'."
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "prospect"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("prospect")


def traced(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that records a span for each request, if traces are on."""
    if _tracer is None:
        raise MiddlewareNotUsed
    tracer = _tracer
    from opentelemetry.trace import SpanKind, StatusCode

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with tracer.start_as_current_span(
            "request",
            kind=SpanKind.SERVER,
            record_exception=False,  # its message may contain text of a conversation
            set_status_on_exception=False,
        ) as span:
            response = get_response(request)
            span.update_name(f"{method_of(request)} {view_of(request)}")
            span.set_attributes(
                {
                    "http.request.method": method_of(request),
                    "http.response.status_code": response.status_code,
                    "prospect.request_id": log_context.request_id(),
                }
            )
            if response.status_code >= 500:
                span.set_status(StatusCode.ERROR)
            return response

    return middleware


def inject(headers: dict[str, Any]) -> None:
    """Add the current span to the headers of a message."""
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)


def task_begin(name: str, headers: Mapping[str, Any]) -> TaskSpan | None:
    """Begin the span of a task, as a child of the span that sent its message."""
    if _tracer is None:
        return None
    from opentelemetry import context
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    sender = {"traceparent": str(headers.get("traceparent") or "")}
    span = _tracer.start_span(
        name,
        context=TraceContextTextMapPropagator().extract(sender),
        kind=SpanKind.CONSUMER,
        attributes={"prospect.request_id": log_context.request_id()},
    )
    return TaskSpan(span, context.attach(set_span_in_context(span)))


def task_end(span: TaskSpan | None, *, state: str) -> None:
    """End the span of a task."""
    if span is None:
        return
    from opentelemetry import context
    from opentelemetry.trace import StatusCode

    context.detach(span.token)
    span.span.set_attribute("celery.state", state)
    if state == "FAILURE":
        span.span.set_status(StatusCode.ERROR)
    span.span.end()
