"""A configuration of Envoy in front of the picker: the picker names the endpoint, Envoy carries the bytes.

Buffered mode reads the request whole before it asks: where the picker is gone, ``fail_open`` lets requests through to
any endpoint. In full duplex mode, which gateways of the inference extension use, Envoy cannot let go of a body that it
has begun to send to the picker, so that a lost picker is an error whatever is configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from infermix.serve.config import GatewayFile
from infermix.serve.epp.exchange import DESTINATION, LB, SUBSET_HINT

Mode = Literal["buffered", "duplex"]
_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_OVERRIDE = "type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost"
_LEAST = "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

MODES = {
    "buffered": """request_header_mode: SEND
                request_body_mode: BUFFERED
                request_trailer_mode: SKIP
                response_header_mode: SEND
                response_body_mode: NONE
                response_trailer_mode: SKIP""",
    "duplex": """request_header_mode: SEND
                request_body_mode: FULL_DUPLEX_STREAMED
                request_trailer_mode: SEND
                response_header_mode: SEND
                response_body_mode: FULL_DUPLEX_STREAMED
                response_trailer_mode: SEND""",
}

_TEXT = """\
# Written by `infermix epp --print-envoy`: {mode} mode; without a picker requests {fate}.
static_resources:
  listeners:
  - name: gateway
    address: {{ socket_address: {{ address: {host}, port_value: {port} }} }}
    per_connection_buffer_limit_bytes: {body_bytes}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {manager}
          stat_prefix: gateway
          stream_idle_timeout: {total_s}s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route:
                  cluster: backends
                  timeout: 0s
                  retry_policy:
                    retry_on: connect-failure,refused-stream,retriable-status-codes
                    retriable_status_codes: [429, 502, 503]
                    num_retries: {retries}
                    retry_back_off: {{ base_interval: 0.001s, max_interval: 0.005s }}
          http_filters:
          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": {proc}
              grpc_service:
                envoy_grpc: {{ cluster_name: picker }}
                timeout: 5s
              failure_mode_allow: {fail_open}
              message_timeout: 5s
              processing_mode:
                {processing}
              response_attributes: ["upstream.address"]
              metadata_options:
                forwarding_namespaces: {{ untyped: [{lb}, {subset}] }}
                receiving_namespaces: {{ untyped: [{lb}] }}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {router} }}
  clusters:
  - name: backends
    type: STATIC
    connect_timeout: {connect_s}s
    per_connection_buffer_limit_bytes: {body_bytes}
    # the default of 3 retries at a time turns requests away when a backend is lost under load
    circuit_breakers:
      thresholds:
      - {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000, max_retries: 100000 }}
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.override_host
          typed_config:
            "@type": {override}
            override_host_sources:
            - metadata: {{ key: {lb}, path: [{{ key: {destination} }}] }}
            - header: {destination}
            fallback_policy:
              policies:
              - typed_extension_config:
                  name: envoy.load_balancing_policies.least_request
                  typed_config: {{ "@type": {least} }}
    load_assignment:
      cluster_name: backends
      endpoints:
      - lb_endpoints:
{endpoints}
  - name: picker
    type: STRICT_DNS
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": {http}
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    circuit_breakers:
      thresholds:
      - {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}
    health_checks:
    - timeout: 1s
      interval: 1s
      unhealthy_threshold: 2
      healthy_threshold: 1
      grpc_health_check: {{ service_name: liveness }}
    load_assignment:
      cluster_name: picker
      endpoints:
      - lb_endpoints:
{pickers}
"""


def envoy_yaml(
    file: GatewayFile, addresses: Sequence[str], pickers: Sequence[str], *, mode: Mode, fail_open: bool
) -> str:
    """The configuration as text.

    Parameters
    ----------
    addresses
        ``IP:port`` of the backends.
    pickers
        ``HOST:port`` of every replica of the picker.
    fail_open
        Whether requests are let through to any backend while no picker answers.
    """
    host, port = file.address
    through = fail_open and mode == "buffered"
    return _TEXT.format(
        mode=mode,
        fate="go to the backend with the fewest" if through else "are refused with 500",
        host=host,
        port=port,
        body_bytes=file.limits.max_body_bytes,
        total_s=f"{file.limits.total_s:g}",
        connect_s=f"{file.limits.connect_s:g}",
        retries=file.limits.retries,
        fail_open=str(fail_open).lower(),
        processing=MODES[mode],
        endpoints="\n".join(_endpoint(address) for address in addresses),
        pickers="\n".join(_endpoint(address) for address in pickers),
        lb=LB,
        subset=SUBSET_HINT,
        destination=DESTINATION,
        proc=_PROC,
        router=_ROUTER,
        manager=_MANAGER,
        override=_OVERRIDE,
        least=_LEAST,
        http=_HTTP,
    )


def _endpoint(address: str) -> str:
    host, _, port = address.rpartition(":")
    place = f'{{ address: "{host.strip("[]")}", port_value: {port} }}'
    return f"        - endpoint: {{ address: {{ socket_address: {place} }} }}"
